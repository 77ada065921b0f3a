"""VGG16 in the five groups that few-shot methods cut it into (Simonyan and Zisserman, ICLR 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from fewseg.model.contract import Backbone
from fewseg.model.options import Dilation, Inputs, Stride, Width

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

WITHOUT_LAST_POOLINGS: Mapping[str, object] = {
    "batch_norm": False,
    "pool_kernel": 3,
    "pool_stride": (2, 2, 2, 1, 0),
    "ceil_pool": False,
    "dilation": (1, 1, 1, 1, 2),
}
"""VGG16 as PANet cuts it: of stride 8, its last group dilated."""

WITHOUT_LAST_STRIDES: Mapping[str, object] = {
    "batch_norm": False,
    "pool_kernel": 3,
    "pool_stride": (2, 2, 2, 1, 1),
    "ceil_pool": False,
}
"""VGG16 as SG-One and PMMs cut it: of stride 8, with all poolings and without dilation."""


class VGG16(Backbone):
    """VGG16 whose groups ``layer0`` .. ``layer4`` each end with their pooling, except the last.

    Args:
        batch_norm: whether every convolution is followed by BatchNorm.
        pool_kernel: kernel of the poolings; 3 is padded by one.
        pool_stride: strides of the poolings of ``layer0`` .. ``layer4``; 0 leaves a pooling out.
        ceil_pool: whether poolings round their output size up.
        dilation: of the convolutions of the five groups.
        inputs: channels of the image.
        width: channels of the first group; 64 in every published network.
    """

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
        self.channels = {name: widths[-1] for name, widths in zip(self.stages, groups, strict=True)}
        for name, widths, stride, spread in zip(self.stages, groups, pool_stride, dilation, strict=True):
            layers: list[nn.Module] = []
            for outputs in widths:
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=spread, dilation=spread))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(outputs))
                layers.append(nn.ReLU(inplace=True))
                inputs = outputs
            if stride:
                layers.append(
                    nn.MaxPool2d(
                        pool_kernel, stride, pool_kernel // 2 if pool_kernel == 3 else 0, ceil_mode=ceil_pool
                    )
                )
            self.add_module(name, nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def taps(self, stage: str) -> tuple[str, ...]:
        convolutions = [m for m in self.get_submodule(stage) if isinstance(m, nn.Conv2d)]
        return tuple(f"{stage}.{number}" for number in range(len(convolutions)))

    def run_stage(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)

    def _run(self, name: str, x: Tensor, wanted: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        tapped, number = {}, 0
        for module in self.get_submodule(name):
            if isinstance(module, nn.MaxPool2d):
                tapped |= dict.fromkeys({f"{name}.unpooled"} & wanted, x)
            x = module(x)
            if isinstance(module, nn.Conv2d):
                key = f"{name}.{number}"
                if key in wanted:  # a copy: the activation that follows works in place
                    tapped[key] = x.clone()
                number += 1
        return x, tapped
