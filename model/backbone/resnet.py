"""Residual networks whose last stages may be dilated (He et al., CVPR 2016; Zhao et al., CVPR 2017)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import relu

from fewseg.model.backbone.contract import BackboneSpec, Feature, PublicWeights, renamed
from fewseg.model.backbone.staged import StagedBackbone
from fewseg.model.options import Dilation, Inputs, Width

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth -> blocks in each of the four stages."""

DEEPLAB: Mapping[str, object] = {
    "stem": "standard",
    "dilation": (1, 1, 2, 4),
    "stride_first": True,
    "ceil_pool": True,
    "last_stage": "layer3",
}
"""DeepLab's network as CANet and PMMs use it: stride 8, Caffe's strides, without its last stage."""

_STANDARD_STEM = 4
"""Number of layers of torchvision's stem; the deep stem has more."""
_DEEP_STEM = {
    **{"conv1.": "layer0.0.", "bn1.": "layer0.1.", "conv2.": "layer0.3.", "bn2.": "layer0.4."},
    **{"conv3.": "layer0.6.", "bn3.": "layer0.7."},
}
_NESTED_STEM = {"conv1.": "layer0.", "bn1.": "layer0.7."}
"""The names of the same stem in other files."""

_PUBLISHED_AT = "https://drive.google.com/open?id=15wx9vOM0euyizq-M1uINgN0_wjVRf9J3"
"""The folder with the files of github.com/hszhao/semseg, from which the deep-stem weights come."""
_MEGABYTES = {50: 103, 101: 179, 152: 242}
"""Depth -> size of the tensors of a deep-stem ResNet. No published checksum of its file is known."""
_TORCHVISION = "--opts Method.backbone_options.stem standard (in stage 1 too, where a base learner is used)"


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; the output has four times the planes."""

    expansion = 4

    def __init__(
        self, inputs: int, planes: int, stride: int, dilation: int, *, stride_first: bool = False
    ) -> None:
        super().__init__()
        strides = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(inputs, planes, 1, strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, strides[1], dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _shortcut(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual sum, before the last activation."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        x = relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x)).add_(shortcut)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    expansion = 1

    def __init__(
        self, inputs: int, planes: int, stride: int, dilation: int, *, stride_first: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual sum, before the last activation."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x)).add_(shortcut)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(StagedBackbone):
    """A residual network in five stages.

    Args:
        depth: 18, 50, 101 or 152.
        stem: ``deep`` is three 3x3 convolutions, the layout of the published few-shot checkpoints;
            ``standard`` one 7x7 convolution, torchvision's layout.
        dilation: dilations of the four residual stages. A stage with dilation above 1 keeps its resolution.
        dilate_first_block: whether the first block of a dilated stage is dilated too, as in PSPNet; in
            torchvision it has the dilation of the stage before.
        stride_first: whether a bottleneck's first 1x1 convolution has the stride, as in Caffe.
        ceil_pool: whether the stem's pooling rounds its output size up.
        width: channels of the first stage; 64 in every published network.
        last_stage: the deepest stage that exists, ``layer4`` or ``layer3``.
        inputs: channels of the image.
    """

    family = "resnet"

    def __init__(
        self,
        depth: int,
        *,
        stem: Literal["deep", "standard"] = "deep",
        dilation: tuple[Dilation, Dilation, Dilation, Dilation] = (1, 1, 2, 4),
        dilate_first_block: bool = True,
        stride_first: bool = False,
        ceil_pool: bool = False,
        width: Width = 64,
        last_stage: Literal["layer3", "layer4"] = "layer4",
        inputs: Inputs = 3,
    ) -> None:
        super().__init__()
        block = BasicBlock if depth == 18 else Bottleneck
        self.stages = ("layer0", "layer1", "layer2", "layer3", "layer4")[: int(last_stage[-1]) + 1]
        self.layer0, channels = _stem(stem, inputs, width, ceil_pool)
        features = {"layer0.unpooled": Feature(channels, 2), "layer0": Feature(channels, 4)}
        side = 4
        for index, name in enumerate(self.stages[1:]):
            planes, dilated = width << index, dilation[index]
            stride = 1 if index == 0 or dilated > 1 else 2
            before = dilation[index - 1] if index else 1
            side *= stride
            blocks = []
            for position in range(BLOCKS[depth][index]):
                first = position == 0
                rate = dilated if dilate_first_block or not first else before
                blocks.append(
                    block(channels, planes, stride if first else 1, rate, stride_first=stride_first)
                )
                channels = planes * block.expansion
                features[f"{name}.{position}"] = Feature(channels, side)
            self.add_module(name, nn.Sequential(*blocks))
            features[name] = Feature(channels, side)
        self.spec = BackboneSpec(
            name=f"resnet{depth}",
            features=features,
            roles=self._roles(signed=f"{self.stages[-1]}.{len(blocks) - 1}"),
            levels=tuple(tuple(f for f in features if f.startswith(f"{s}.")) for s in self.stages[2:]),
            high_from="layer3" if last_stage == "layer4" else None,
            weights=_public_weights(depth, deep=stem == "deep"),
        )
        _initialise(self)

    @classmethod
    def may_be_in(cls, entries: Iterable[str], *arguments: Any) -> bool:
        """Return whether blocks have a BatchNorm ``bn1``, and ``layer3`` has the blocks of this depth."""
        (depth,) = arguments
        if not any(".bn1." in name for name in entries):
            return False
        blocks = [int(match[1]) for name in entries if (match := re.search(r"\blayer3\.(\d+)\.", name))]
        return not blocks or BLOCKS[depth][2] == 1 + max(blocks)

    def layer_names(self, source: str) -> dict[str, str]:
        return {"layer0.0": "conv1", "layer0.1": "bn1"} if source == "torchvision" else {}

    def from_public(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = {"conv1.": "layer0.0.", "bn1.": "layer0.1."}
        if len(self.layer0) > _STANDARD_STEM:
            names = _NESTED_STEM if "conv1.0.weight" in entries else _DEEP_STEM
        return renamed(entries, names, () if "layer4" in self.stages else ("layer4.",))

    def _step(self, layer: nn.Module, x: Tensor) -> Tensor:
        return relu(layer(x), inplace=True)

    def _run(self, name: str, x: Tensor, names: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        if name == "layer0":
            x = self.layer0[:-1](x)
            return self.layer0[-1](x), dict.fromkeys({"layer0.unpooled"} & names, x)
        tapped = {}
        for index, block in enumerate(self.layers(name)):
            x = block(x)
            key = f"{name}.{index}"
            if key in names:
                tapped[key] = x
            x = relu(x, inplace=key not in names)
        return x, tapped


def _stem(kind: str, inputs: int, width: int, ceil_pool: bool) -> tuple[nn.Sequential, int]:
    pool = nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_pool)
    if kind == "standard":
        convolution = nn.Conv2d(inputs, width, 7, 2, 3, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True), pool), width
    layers: list[nn.Module] = []
    for before, outputs, stride in ((inputs, width, 2), (width, width, 1), (width, 2 * width, 1)):
        layers += [
            nn.Conv2d(before, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, pool), 2 * width


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _public_weights(depth: int, *, deep: bool) -> PublicWeights:
    if not deep:
        return PublicWeights(torchvision=f"resnet{depth}")
    if depth not in _MEGABYTES:
        return PublicWeights(
            remedy=f"the deep-stem resnet{depth} has none, take torchvision's with {_TORCHVISION}"
        )
    file = f"resnet{depth}_v2.pth"
    return PublicWeights(
        file,
        remedy=f"download initmodel/{file} ({_MEGABYTES[depth]} MB; no checksum is known) from "
        f"{_PUBLISHED_AT} and put it there, take torchvision's weights instead: {_TORCHVISION}",
    )
