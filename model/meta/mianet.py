"""MIANet: Y. Yang, Q. Chen, Y. Feng, T. Huang, "MIANet: Aggregating Unbiased Instance and General Information
for Few-Shot Segmentation", CVPR 2023.

The prototype of a few supports is biased, so it is replaced by a general prototype, which is generated from
the class's word vector and the supports' prototype. A parameter-free hierarchy of priors and PFENet's decoder
complete the network. The class of the target is an input in testing too, so results are not comparable with
those of purely visual methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize, pairwise_distance

from fewseg.model.contract import BuildArguments, MetaLearner
from fewseg.model.encoding import CLASS_ID, Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.block import reduction
from fewseg.model.layer.enrichment import (
    INNER_MAP,
    PUBLISHED_NAMES,
    EnrichmentDecoder,
    check_scales,
    enrichment_losses,
    grid_sizes,
)
from fewseg.model.layer.features import middle_features
from fewseg.model.layer.pooling import foreground, masked_average_pool
from fewseg.model.layer.prior import scale_to_unit_range, unit
from fewseg.model.layer.resize import resize, resize_like
from fewseg.model.options import Channels, Scales, Share, Weight
from fewseg.model.records import Adaptation, Inputs, Learning, Map, Published, TextInput

WORD_WIDTH = 300
_HIDDEN = 128
_MARGIN = 0.5


@dataclass(frozen=True, eq=False)
class MIANetOptions:
    """Options of MIANet.

    Attributes:
        embeddings: word vectors, float [1 + classes, 300], row 0 the background's; in a config the path of a
            table, or ``hashed``. A checkpoint does not contain them and must be used with the vectors that it
            was trained with.
        ppm_scales: grids of priors and decoder, finest first: sides in positions, or fractions of the query's
            feature grid. Published for 473 px: 60, 30, 15, 8. The default, the grid of the shallower middle
            feature and three halvings, rounded up, gives the same.
        aux_weight: weight of the inner losses.
        fix_bn: whether the frozen backbone normalises with its stored statistics in training. Published:
            False, so it normalises by the batch, and its statistics drift away from the pretrained ones.
        object_threshold: value of the resized mask from which a local feature belongs to the object in the
            triplet loss. Published: 1.0, which excludes positions that rounding leaves just below 1; 0.999
            includes them.
        channels: width of the decoder; 256 in the published network.
    """

    embeddings: Tensor | None = None
    ppm_scales: Scales | None = None
    aux_weight: Weight = 1.0
    fix_bn: bool = True
    object_threshold: Share = 1.0
    channels: Channels = 256

    def __post_init__(self) -> None:
        if self.ppm_scales is not None:
            check_scales(self.ppm_scales)
        if self.embeddings is None:
            raise ValueError(
                "mianet needs word vectors: set embeddings, in a config the path of a table or hashed, "
                "in code a tensor [1 + classes, 300]"
            )
        if self.embeddings.ndim != 2 or self.embeddings.shape[1] != WORD_WIDTH or len(self.embeddings) < 2:
            raise ValueError(
                f"embeddings of mianet must be [1 + classes, {WORD_WIDTH}], one word vector per row and "
                f"row 0 the background's; got {list(self.embeddings.shape)}"
            )


class MIANet(MetaLearner):
    """General prototype from words and supports, hierarchical priors, feature enrichment.

    The published code reads only the first shot. Our extension to several shots averages prototypes, priors
    and triplet losses over the shots.
    """

    Options = MIANetOptions
    embeddings: Tensor
    inputs = Inputs(text=TextInput.WORD_VECTORS).reading("middle", "high")
    published = Published(
        names={
            "reduction": "down_features",
            "local_features": "LFG",
            "generator": "GIG.model",
            **PUBLISHED_NAMES,
        },
        extra=("pspnet.",),  # the base learner; the method uses only its backbone
        maps=(Map("prior#", "prior at scale #", limits=(0, 1)), INNER_MAP),
    )

    def __init__(self, build: BuildArguments, options: MIANetOptions) -> None:
        super().__init__()
        self.options = options
        self.learning = Learning().with_stored_statistics(options.fix_bn)
        self.scales = options.ppm_scales or _halved(build)
        self.priors = tuple(f"prior{level}" for level in range(len(self.scales)))
        self.adaptation = Adaptation(blended=("prototype", *self.priors))
        width = options.channels
        self.reduction = reduction(build.backbone.spec.channels("middle"), width, dropout=0.5)
        self.local_features = _local_features(width)
        self.generator = _generator(WORD_WIDTH + width, width)
        self.decoder = EnrichmentDecoder(width, len(self.scales))
        assert options.embeddings is not None  # checked by the options
        self.register_buffer("embeddings", options.embeddings.float().clone(), persistent=False)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {"feature": self.reduction(middle_features(features)), "high": features["high"]}

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = self.reduction(middle_features(features))
        mask = resize_like(foreground(mask), feature)
        sizes = grid_sizes(self.scales, feature.shape[-2:])
        encoding = {
            "prototype": masked_average_pool(feature, mask),
            "prior_support": support_means(features["high"], mask, sizes),
        }
        return {**encoding, **self._local(feature, mask)} if self.training else encoding

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        sizes = grid_sizes(self.scales, query["feature"].shape[-2:])
        shots = [
            hierarchical_prior(query["high"], means, sizes) for means in support["prior_support"].unbind(1)
        ]
        priors = [torch.stack(level).mean(0) for level in zip(*shots, strict=True)]
        return {
            "prototype": self.generator(torch.cat([self._words(support), support["prototype"].mean(1)], 1)),
            **dict(zip(self.priors, priors, strict=True)),
            **{name: support[name] for name in ("local_feature", "local_object") if name in support},
        }

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        priors = [guidance[name] for name in self.priors]
        logits, inner = self.decoder(query["feature"], [guidance["prototype"]], priors)
        return Prediction(logits, {**guidance, **inner})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return ``main``, ``inner`` and, for a prediction made in training mode, ``triplet``."""
        losses = enrichment_losses(prediction, episode.ground_truth, self.options.aux_weight)
        parts = prediction.parts
        if "local_feature" in parts:
            local, inside = parts["local_feature"], parts["local_object"]
            losses["triplet"] = triplet_loss(
                parts["prototype"].flatten(0, -2), local.flatten(0, -4), inside.flatten(0, -3)
            )
        return losses

    def _local(self, feature: Tensor, mask: Tensor) -> Encoding:
        """Return local features [B,P,C], and whether each of them belongs to the object, bool [B,P]."""
        local = self.local_features(feature)
        inside = interpolate(mask, local.shape[-2:], mode="nearest") >= self.options.object_threshold
        return {"local_feature": local.flatten(2).transpose(1, 2), "local_object": inside.flatten(1)}

    def _words(self, support: Encoding) -> Tensor:
        """Return the word vector of every episode's class, [B,300]."""
        if CLASS_ID not in support:
            raise ValueError("mianet reads the word vector of the supports' class: pass class_id with them")
        class_id = support[CLASS_ID][:, 0]
        classes = len(self.embeddings) - 1
        outside = class_id[(class_id < 1) | (class_id > classes)]
        if len(outside):
            raise ValueError(
                f"class {int(outside[0])} has no word vector: the table covers the classes 1 to {classes}; "
                "set embeddings to one with a row for every class of the data set"
            )
        return self.embeddings[class_id]


def support_means(high: Tensor, mask: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Return the mean unit feature of a masked support at every level, [B,levels,C].

    The published prior is the mean cosine with all support positions, where positions outside the mask count
    as 0. It equals the product of the query's unit feature with this one vector.

    Args:
        high: features [B,C,h,w] of the unmasked image.
        mask: soft foreground [B,1,h,w].
        sizes: grid of every level. The mask is downsampled from level to level, as published.
    """
    means, current = [], mask
    for level, size in enumerate(sizes):
        scaled = resize(current, size)
        means.append(unit(resize(high, size) * scaled).mean((2, 3)))
        if not _is_upsampled(level, size, high):
            current = scaled
    return torch.stack(means, 1)


def hierarchical_prior(high: Tensor, means: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return the prior of every level, [B,1,b,b], each level weighted by the prior of the one before.

    Args:
        high: query features [B,C,h,w].
        means: result of ``support_means`` for one support, [B,levels,C].
        sizes: grid of every level.
    """
    priors, current = [], high
    for level, (size, mean) in enumerate(zip(sizes, means.unbind(1), strict=True)):
        upsampled = _is_upsampled(level, size, high)
        scaled = resize(high, size) if upsampled else adaptive_avg_pool2d(current, size)
        # Mean cosines vary by thousandths over an image. In single precision, scaling them to [0,1] would
        # amplify rounding errors from level to level.
        double = scaled.double()
        cosine = torch.einsum("bchw,bc->bhw", double, mean.double()) / double.norm(dim=1).clamp_min(1e-7)
        priors.append(scale_to_unit_range(cosine.flatten(1)).view(-1, 1, *size).to(high.dtype))
        if not upsampled:
            current = scaled * priors[-1]
    return priors


def triplet_loss(anchor: Tensor, local: Tensor, inside: Tensor) -> Tensor:
    """Return the triplet loss of the general prototype and local features of the supports.

    The positive is the object's local feature that is farthest from the prototype, the negative is the mean
    of the local features outside the object.

    Args:
        anchor: general prototypes [B,C].
        local: local features of the supports, [B,K,P,C].
        inside: whether they belong to the object, bool [B,K,P]. A support without features of both kinds is
            ignored.
    """
    anchor, local = normalize(anchor, dim=-1)[:, None], normalize(local, dim=-1)
    outside = ~inside
    farthest = pairwise_distance(anchor[:, None], local).masked_fill(outside, 0).amax(-1)
    weight = outside.unsqueeze(-1).to(local.dtype)
    mean = (local * weight).sum(2) / weight.sum(2).clamp_min(1)
    counted = inside.any(-1) & outside.any(-1)
    loss = (_MARGIN + farthest - pairwise_distance(anchor, mean)).clamp_min(0) * counted
    return loss.sum() / counted.sum().clamp_min(1)


def _is_upsampled(level: int, size: tuple[int, int], high: Tensor) -> bool:
    """Whether a level is finer than the high feature, as VGG16's first is, and uses an upsampled copy."""
    return level == 0 and size[0] > high.shape[-2]


def _halved(build: BuildArguments) -> tuple[int, ...]:
    spec = build.backbone.spec
    side = -(-build.image_size // spec.features[spec.names(("middle",))[0]].stride)
    return tuple(-(-side // factor) for factor in (1, 2, 4, 8))


def _generator(inputs: int, outputs: int) -> nn.Sequential:
    """Return the general information generator: word vector and instance prototype -> general prototype."""
    first, second = nn.Linear(inputs, _HIDDEN), nn.Linear(_HIDDEN, outputs)
    for layer in (first, second):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.constant_(layer.bias, 0.01)
    return nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.2), second, nn.Dropout(0.3))


def _local_features(channels: int) -> nn.Sequential:
    """Return three 3x3 convolutions that compute local features on a grid four times coarser."""
    layers: list[nn.Module] = []
    for stride, padding in ((2, 0), (2, 1), (1, 1)):
        layers += [nn.Conv2d(channels, channels, 3, stride, padding, bias=False), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])
