"""VGG16 in the five groups that few-shot methods cut it into (Simonyan and Zisserman, ICLR 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from model.interface import Backbone

_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(Backbone):
    """VGG16 whose groups ``layer0`` .. ``layer4`` each end with their pooling, except the last.

    Args:
        batch_norm: whether every convolution is followed by BatchNorm.
        pool_kernel: kernel of the poolings; 3 is padded by one.
        pool_stride: strides of the poolings of ``layer0`` .. ``layer4``; 0 leaves a pooling out.
        ceil_pool: whether poolings round their output size up.
        dilation: of the convolutions of the five groups.
    """

    stages = ("layer0", "layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        *,
        batch_norm: bool = True,
        pool_kernel: int = 2,
        pool_stride: Sequence[int] = (2, 2, 2, 2, 0),
        ceil_pool: bool = True,
        dilation: Sequence[int] = (1, 1, 1, 1, 1),
    ) -> None:
        super().__init__()
        self.channels = {name: widths[-1] for name, widths in zip(self.stages, _WIDTHS, strict=True)}
        inputs = 3
        for name, widths, stride, spread in zip(self.stages, _WIDTHS, pool_stride, dilation, strict=True):
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
            x = module(x)
            if isinstance(module, nn.Conv2d):
                key = f"{name}.{number}"
                if key in wanted:  # a copy: the activation that follows works in place
                    tapped[key] = x.clone()
                number += 1
        return x, tapped
