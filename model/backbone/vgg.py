"""VGG16 in five stages, as few-shot methods use it (Simonyan and Zisserman, ICLR 2015)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from fewseg.model.backbone.contract import BackboneSpec, Feature, PublicWeights
from fewseg.model.backbone.staged import StagedBackbone
from fewseg.model.options import Dilation, Inputs, Stride, Width

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

_FILES = {"vgg16_bn": "vgg16_bn.pth", "vgg16": "vgg16-397923af.pth"}
"""Network in torchvision -> name of the file of its weights in published codes."""

WITHOUT_LAST_POOLINGS: Mapping[str, object] = {
    "batch_norm": False,
    "pool_kernel": 3,
    "pool_stride": (2, 2, 2, 1, 0),
    "ceil_pool": False,
    "dilation": (1, 1, 1, 1, 2),
}
"""VGG16 as PANet uses it: stride 8, with the last stage dilated."""

WITHOUT_LAST_STRIDES: Mapping[str, object] = {
    "batch_norm": False,
    "pool_kernel": 3,
    "pool_stride": (2, 2, 2, 1, 1),
    "ceil_pool": False,
}
"""VGG16 as SG-One and PMMs use it: stride 8, with all pooling layers and without dilation."""


class VGG16(StagedBackbone):
    """VGG16 in the stages ``layer0`` .. ``layer4``, each of which ends with its pooling layer.

    Args:
        batch_norm: whether every convolution is followed by BatchNorm.
        pool_kernel: kernel size of the pooling layers; with 3 they have a padding of 1.
        pool_stride: strides of the pooling layers of ``layer0`` .. ``layer4``; 0 means no pooling.
        ceil_pool: whether pooling layers round their output size up.
        dilation: dilations of the convolutions of the five stages.
        inputs: channels of the image.
        width: channels of the first stage; 64 in every published network.
    """

    family = "vgg"
    stages = ("layer0", "layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        *,
        batch_norm: bool = True,
        pool_kernel: Literal[2, 3] = 2,
        pool_stride: tuple[Stride, Stride, Stride, Stride, Stride] = (2, 2, 2, 2, 0),
        ceil_pool: bool = True,
        dilation: tuple[Dilation, Dilation, Dilation, Dilation, Dilation] = (1, 1, 1, 1, 1),
        inputs: Inputs = 3,
        width: Width = 64,
    ) -> None:
        super().__init__()
        groups = [[channels * width // _WIDTHS[0][0] for channels in widths] for widths in _WIDTHS]
        features: dict[str, Feature] = {}
        side = 1
        for name, widths, stride, rate in zip(self.stages, groups, pool_stride, dilation, strict=True):
            layers: list[nn.Module] = []
            for index, outputs in enumerate(widths):
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(outputs))
                layers.append(nn.ReLU(inplace=True))
                inputs = outputs
                features[f"{name}.{index}"] = Feature(outputs, side)
            if stride:
                layers.append(
                    nn.MaxPool2d(
                        pool_kernel, stride, pool_kernel // 2 if pool_kernel == 3 else 0, ceil_mode=ceil_pool
                    )
                )
                features[f"{name}.unpooled"] = Feature(inputs, side)
                side *= stride
            self.add_module(name, nn.Sequential(*layers))
            features[name] = Feature(inputs, side)
        taps = [tuple(f"{stage}.{index}" for index in range(3)) for stage in ("layer3", "layer4")]
        network = "vgg16_bn" if batch_norm else "vgg16"
        self.spec = BackboneSpec(
            name="vgg16",
            features=features,
            roles=self._roles(signed=taps[-1][-1]),
            levels=(*taps, ("layer4",)),
            high_from="layer3",
            weights=PublicWeights(_FILES[network], network),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    @classmethod
    def may_be_in(cls, entries: Iterable[str], *arguments: Any) -> bool:
        """Return whether there is no BatchNorm ``bn1`` of a residual block."""
        return not any(".bn1." in name for name in entries)

    def layer_names(self, source: str) -> dict[str, str]:
        if source == "torchvision":
            layers = [f"{s}.{index}" for s in self.stages for index in range(len(self.layers(s)))]
            return {layer: f"features.{index}" for index, layer in enumerate(layers)}
        names: dict[str, str] = {}
        for group, stage in enumerate(self.stages, 1):
            indices = [n for n, layer in enumerate(self.layers(stage)) if isinstance(layer, nn.Conv2d)]
            names |= {f"{stage}.{index}": f"conv{group}_{order}" for order, index in enumerate(indices, 1)}
        return names

    def _run(self, name: str, x: Tensor, names: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        tapped: dict[str, Tensor] = {}
        index = 0
        for module in self.layers(name):
            if isinstance(module, nn.MaxPool2d):
                tapped |= dict.fromkeys({f"{name}.unpooled"} & names, x)
            x = module(x)
            if isinstance(module, nn.Conv2d):
                key = f"{name}.{index}"
                if key in names:  # a copy, because the activation that follows works in place
                    tapped[key] = x.clone()
                index += 1
        return x, tapped
