"""HSNet: J. Min, D. Kang, M. Cho, "Hypercorrelation Squeeze for Few-Shot Segmentation", ICCV 2021.

The cosines between all query and all support positions, in every block of a frozen ImageNet backbone, are
squeezed to one map per query by 4D convolutions, from the coarsest level of a pyramid to the finest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from fewseg.model.backbone.contract import LEVELS
from fewseg.model.contract import Backbone, BuildArguments, MetaLearner
from fewseg.model.encoding import SHOT_LOGITS, Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.resize import resize, resize_like
from fewseg.model.meta.hsnet.centre_pivot import squeeze_block
from fewseg.model.meta.hsnet.hypercorrelation import hypercorrelation, object_vectors, unit_vectors
from fewseg.model.options import Channels
from fewseg.model.records import Inputs, Map, Published, SameSize

Level = Literal[2, 3, 4]

_LEVELS: tuple[Level, ...] = (2, 3, 4)
"""The pyramid levels, named as the paper does after the blocks of the ResNet, fine to coarse."""


@dataclass(frozen=True)
class HSNetOptions:
    """Options of HSNet.

    Attributes:
        ignore_boundary: whether the loss ignores void pixels of the query (255). Published: False, they
            count as background.
        levels: levels of the pyramid that are compared: 2 is the finest, layer2 of the ResNet, 4 the
            coarsest. Published: 2, 3, 4.
        channels: channels of the squeezed tensors, a multiple of 32; 128 in the published network.
    """

    ignore_boundary: bool = False
    levels: tuple[Level, ...] = _LEVELS
    channels: Channels = 128

    def __post_init__(self) -> None:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(
                f"levels of hsnet must be different and ascending, such as [3, 4]; got {list(self.levels)}"
            )
        if self.channels % 32:
            raise ValueError(f"option 'channels' of hsnet must be a multiple of 32, got {self.channels}")


class HSNet(MetaLearner):
    """Correlations, squeezed over the support and decoded to a mask; the masks of several supports vote."""

    Options = HSNetOptions
    inputs = Inputs(same_size=SameSize.SUPPORTS).reading(LEVELS)
    published = Published(
        backbone_variants={
            "resnet": {"stem": "standard", "dilation": (1, 1, 1, 1)},
            "vgg": {"batch_norm": False, "pool_stride": (2, 2, 2, 2, 2), "ceil_pool": False},
        },
        extra=("backbone.fc.", "backbone.classifier."),
        maps=(Map("squeezed#", "squeezed correlations, level #"),),
    )

    def __init__(self, build: BuildArguments, options: HSNetOptions) -> None:
        super().__init__()
        self.options = options
        plans = _plans(build.backbone, options.channels)
        chosen = [_LEVELS.index(level) for level in reversed(options.levels)]  # coarse to fine
        self.levels = tuple(build.backbone.spec.levels[level] for level in chosen)
        if options.levels != _LEVELS:
            self.inputs = self.inputs.reading(*(name for level in self.levels for name in level))
        self.published = replace(self.published, names=_published_names(build.backbone, options.levels))
        middle, wide = options.channels // 2, options.channels
        self.squeeze = nn.ModuleList(
            squeeze_block(len(names), plans[level]) for names, level in zip(self.levels, chosen, strict=True)
        )
        self.mix = nn.ModuleList(squeeze_block(wide, ((wide, 3, 1),) * 3) for _ in chosen[1:])
        self.decode_coarse = nn.Sequential(*_convolution(wide, wide), *_convolution(wide, middle))
        self.decode_fine = nn.Sequential(*_convolution(middle, middle), nn.Conv2d(middle, 2, 3, padding=1))

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {
            f"level{index}": unit_vectors(torch.stack([features[name] for name in level], 1))
            for index, level in enumerate(self.levels)
        }

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        encoding: Encoding = {}
        for index, level in enumerate(self.levels):
            inside = resize_like(foreground(mask), features[level[0]])
            vectors = torch.stack([features[name] for name in level], 1)
            encoding[f"object{index}"] = object_vectors(vectors, inside)
            encoding[f"occupied{index}"] = inside[:, 0] > 0
        return encoding

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        shots = support["occupied0"].shape[1]
        squeezed = [
            self._squeeze(query, {name: tensor[:, shot] for name, tensor in support.items()})
            for shot in range(shots)  # one by one, because the correlations of a shot need much memory
        ]
        guidance = {"squeezed": torch.stack([result for result, _ in squeezed], 1)}
        for index, means in enumerate(zip(*(means for _, means in squeezed), strict=True)):
            guidance[f"squeezed{index}"] = torch.stack(means).mean(0)  # for figures
        return guidance

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        squeezed = guidance["squeezed"]
        coarse = self.decode_coarse(squeezed.flatten(0, 1))
        fine = self.decode_fine(resize(coarse, (2 * coarse.shape[-2], 2 * coarse.shape[-1])))
        shot_logits = fine.unflatten(0, squeezed.shape[:2])
        means = {name: value for name, value in guidance.items() if name != "squeezed"}
        return Prediction(self.join_shots(shot_logits), {SHOT_LOGITS: shot_logits, **means})

    def join_shots(self, shot_logits: Tensor) -> Tensor:
        """Return the logits [B,2,h,w] of one shot unchanged; let K shots [B,K,2,h,w] vote at every pixel.

        As published, a pixel is foreground if it has at least half as many votes as the pixel of the image
        with the most votes. The logits are logarithms of the counts, shifted so that they are finite and half
        the votes suffice.
        """
        if shot_logits.shape[1] == 1:
            return shot_logits[:, 0]
        votes = shot_logits.argmax(2).sum(1)
        most = votes.amax((1, 2), keepdim=True).clamp_min(1)
        return torch.stack([most - votes + 0.25, votes + 0.5], 1).log()

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the mean loss over the shots, each a 1-shot task, because votes have no gradient."""
        shot_logits = prediction.parts[SHOT_LOGITS]  # [B,K,2,h,w], or [B,N,K,2,h,w] for several ways
        losses = [
            pixel_cross_entropy(logits, episode.ground_truth, ignore_void=self.options.ignore_boundary)
            for logits in shot_logits.unbind(shot_logits.ndim - 4)
        ]
        return {"main": torch.stack(losses).mean()}

    def _squeeze(self, query: Encoding, support: Encoding) -> tuple[Tensor, list[Tensor]]:
        """Squeeze the correlations with one support per query.

        Returns:
            The result [B,C,hq,wq] on the finest query grid and, outside training, the mean [B,1,h,w] over
            support and channels after every level, coarse to fine.
        """
        mixed: Tensor | None = None
        means: list[Tensor] = []
        for index, squeeze in enumerate(self.squeeze):
            assert isinstance(squeeze, nn.Sequential)  # its first layer skips empty positions
            occupied = support[f"occupied{index}"]
            x = hypercorrelation(query[f"level{index}"], support[f"object{index}"], occupied)
            mixed = self.mix_in(mixed, squeeze[1:](squeeze[0](x, occupied)), index)
            means += [] if self.training else [mixed.mean((1, 2, 3)).unsqueeze(1)]
        assert mixed is not None  # there are levels
        return mixed.mean((1, 2)), means

    def mix_in(self, coarser: Tensor | None, x: Tensor, level: int) -> Tensor:
        """Mix the squeezed tensor ``x`` of a level with the result of the coarser levels."""
        return x if coarser is None else self.mix[level - 1](upsample_query(coarser, x) + x)


def _plans(backbone: Backbone, wide: int) -> list[tuple[tuple[int, int, int], ...]]:
    """Return the convolutions of every level, fine to coarse, as (channels, kernel, stride).

    All levels end on the same support grid: an eighth of the coarsest level's grid.
    """
    narrow, middle, spec = wide // 8, wide // 2, backbone.spec
    plans = {
        1: ((narrow, 3, 2), (middle, 3, 2), (wide, 3, 2)),
        2: ((narrow, 5, 4), (middle, 3, 2), (wide, 3, 2)),
        4: ((narrow, 5, 4), (middle, 5, 4), (wide, 3, 2)),
    }
    strides = [spec.stride(level[0]) for level in spec.levels]
    finer = [strides[-1] // stride if strides[-1] % stride == 0 else 0 for stride in strides]
    if len(finer) != len(_LEVELS) or not set(finer) <= set(plans):
        raise ValueError(
            f"hsnet needs {len(_LEVELS)} levels of features whose strides are that of the deepest level, a "
            f"half or a quarter of it; {spec.name} as built has the strides {strides}"
        )
    return [plans[ratio] for ratio in finer]


def upsample_query(x: Tensor, finer: Tensor) -> Tensor:
    """Resize the query grid of [B,hs,ws,C,h,w] to that of ``finer``; a single support cell is broadcast.

    Raises:
        ValueError: the support grids have different numbers of cells.
    """
    if x.shape[1:3] not in ((1, 1), finer.shape[1:3]):
        theirs, own = ("x".join(map(str, t.shape[1:3])) for t in (finer, x))
        raise ValueError(
            f"support grids of {own} and {theirs} cells cannot be mixed; use sides of a multiple of 32"
        )
    return resize(x.flatten(0, 2), tuple(finer.shape[-2:])).unflatten(0, x.shape[:3])


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)


def _published_names(backbone: Backbone, levels: tuple[int, ...]) -> dict[str, str]:
    entries = {"": "", **backbone.layer_names("torchvision")}
    names = {f"backbone.{ours}": f"backbone.{theirs}" for ours, theirs in entries.items()}
    coarse_first = levels[::-1]
    blocks = {f"squeeze.{i}": f"encoder_layer{level}" for i, level in enumerate(coarse_first)}
    steps = enumerate(pairwise(coarse_first))
    blocks |= {f"mix.{i}": f"encoder_layer{coarse}to{fine}" for i, (coarse, fine) in steps}
    for ours, theirs in blocks.items():
        names[ours] = f"hpn_learner.{theirs}"
        for layer in (0, 3, 6):
            names[f"{ours}.{layer}.query"] = f"hpn_learner.{theirs}.{layer}.conv1"
            names[f"{ours}.{layer}.support"] = f"hpn_learner.{theirs}.{layer}.conv2"
    return names | {"decode_coarse": "hpn_learner.decoder1", "decode_fine": "hpn_learner.decoder2"}
