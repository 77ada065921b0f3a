"""FSS-1000's relation network: X. Li, T. Wei, Y. P. Chen, Y.-W. Tai, C.-K. Tang, "FSS-1000: A 1000-Class
Dataset for Few-Shot Segmentation", CVPR 2020.

One encoder reads the supports with their masks as a fourth channel, and the query with a fourth channel of
zeros. Two convolutions, the relation, combine their deepest features, and a decoder upsamples the result with
skip connections from the query's features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from fewseg.model.contract import Backbone, BuildArguments, MetaLearner
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.binary import pixel_binary_loss, two_logits
from fewseg.model.layer.resize import resize_like
from fewseg.model.meta.fss1000.batch_statistics import use_batch_statistics
from fewseg.model.records import BatchNorm, Inputs, Learning, Published, SameSize, SupportView


@dataclass(frozen=True)
class FSS1000Options:
    """Options of the relation network.

    Attributes:
        bn_mode: ``batch``, as published, normalises by the statistics of the batch, in evaluation too;
            ``running`` evaluates with the running statistics of training.
        fusion: fusion of K support features. Published: their ``sum``, which binds a model to its K;
            ``mean`` does not.
        loss: ``bce``, cross-entropy, as the paper says, or ``mse``, the squared error of the published code.
        pixels: ``normalised`` images, or ``unit``, RGB of 0..1, which published weights need.
    """

    bn_mode: Literal["batch", "running"] = "batch"
    fusion: Literal["sum", "mean"] = "sum"
    loss: Literal["bce", "mse"] = "bce"
    pixels: Literal["normalised", "unit"] = "normalised"


class FSS1000(MetaLearner):
    """Joint embedding of image and mask, relation of query and supports, decoder with skip connections."""

    Options = FSS1000Options
    inputs = Inputs(support=("high",), view=SupportView.MASK_CHANNEL, same_size=SameSize.ALL)
    learning = Learning(backbone=True, batch_norm=BatchNorm.BATCH)
    published = Published(
        backbone_variants={
            "vgg": {"inputs": 4, "pool_stride": (2, 2, 2, 2, 2), "ceil_pool": False},
            "resnet": {"inputs": 4, "dilation": (1, 1, 1, 1)},
        },
        files={"features.2.weight": "feature_encoder.", "double_conv1.0.weight": "relation_network."},
    )

    def __init__(self, build: BuildArguments, options: FSS1000Options) -> None:
        super().__init__()
        self.options = options
        self.skips = _skips(build.backbone)
        self.inputs = replace(
            self.inputs,
            query=("high", *self.skips),
            pixel_scale=options.pixels,
            batch_dependent=options.bn_mode == "batch",
        )
        self.published = replace(self.published, names=_published_names(build.backbone))
        channels = build.backbone.spec.channels
        self.relation = RelationNetwork(channels("high"), [channels(name) for name in self.skips])
        if self.inputs.batch_dependent:
            use_batch_statistics(build.backbone)
            use_batch_statistics(self.relation)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {name: features[name] for name in self.inputs.query}

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        return {"feature": features["high"]}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        feature = support["feature"]
        return {"support": feature.sum(1) if self.options.fusion == "sum" else feature.mean(1)}

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        pair = torch.cat([guidance["support"], query["high"]], 1)
        foreground = self.relation(pair, [query[name] for name in self.skips])
        return Prediction(two_logits(foreground), dict(guidance))

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"main": pixel_binary_loss(prediction.logits, episode.ground_truth, kind=self.options.loss)}


class RelationNetwork(nn.Module):
    """The relation of two features, and the decoder that upsamples it to the finest skip connection.

    Args:
        channels: channels of each of the two features.
        skips: channels of the query features of the skip connections, coarse to fine.
    """

    def __init__(self, channels: int, skips: Sequence[int]) -> None:
        super().__init__()
        self.relate = nn.Sequential(*_convolution(2 * channels, channels), *_convolution(channels, channels))
        inputs, steps = channels, []
        for skip, outputs in pairwise(skips):
            steps.append(
                nn.Sequential(*_convolution(inputs + skip, outputs), *_convolution(outputs, outputs))
            )
            inputs = outputs
        last = nn.Sequential(*_convolution(inputs + skips[-1], skips[-1]), nn.Conv2d(skips[-1], 1, 1))
        self.climb = nn.ModuleList([*steps, last])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pair: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Return foreground logits [B,1,H,W] at the size of the finest skip.

        Args:
            pair: both features, concatenated, [B,2C,h,w].
            skips: query features, coarse to fine.
        """
        x = self.relate(pair)
        for step, skip in zip(self.climb, skips, strict=True):
            x = step(torch.cat([resize_like(x, skip), skip], 1))
        return x


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """Return a convolution, BatchNorm and ReLU.

    With the published momentum of 1, the running statistics are those of the last batch.
    """
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs, momentum=1.0),
        nn.ReLU(inplace=True),
    )


def _skips(backbone: Backbone) -> tuple[str, ...]:
    """Return the deepest feature of every grid that is finer than the high feature's, coarse to fine."""
    spec = backbone.spec
    deepest = {feature.stride: name for name, feature in spec.features.items()}
    finer = sorted((stride for stride in deepest if stride < spec.stride("high")), reverse=True)
    if not finer:
        raise ValueError(
            f"fss1000 decodes along features that are finer than the high one, and {spec.name} has none"
        )
    return tuple(deepest[stride] for stride in finer)


def _published_names(backbone: Backbone) -> dict[str, str]:
    relate = {0: "layer1.0", 1: "layer1.1", 3: "layer2.0", 4: "layer2.1"}
    names = {f"relation.relate.{ours}": f"relation_network.{theirs}" for ours, theirs in relate.items()}
    names |= {f"relation.climb.{n}": f"relation_network.double_conv{n + 1}" for n in range(5)}
    for ours, theirs in backbone.layer_names("torchvision").items():
        if theirs.startswith("features."):  # VGG16's widened first convolution has a place of its own
            index = int(theirs.removeprefix("features."))
            theirs = f"features.{index - 1}" if index else "layer1.0"
        names[f"backbone.{ours}"] = f"feature_encoder.{theirs}"
    return names
