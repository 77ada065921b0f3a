"""Short chains of layers that many heads are built from."""

from __future__ import annotations

from torch import Tensor, nn


def reduction(inputs: int, outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Return a 1x1 convolution without bias, a ReLU and, unless ``dropout`` is 0, channel dropout."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Dropout2d(dropout)) if dropout else nn.Sequential(*layers)


def activation(channels: int, *, normalise: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """Return a ReLU, optionally preceded by BatchNorm and followed by channel dropout."""
    norms: list[nn.Module] = [nn.BatchNorm2d(channels)] if normalise else []
    drops: list[nn.Module] = [nn.Dropout2d(dropout)] if dropout else []
    return nn.Sequential(*norms, nn.ReLU(inplace=True), *drops)


def activated(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    dilation: int = 1,
    normalise: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return a convolution with bias that keeps the spatial size, followed by its ``activation``."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation)
    return nn.Sequential(convolution, *activation(outputs, normalise=normalise, dropout=dropout))


def classifier(channels: int, classes: int = 2, dropout: float = 0.1) -> nn.Sequential:
    """Return a 3x3 convolution without bias, ReLU, channel dropout and a 1x1 convolution to the logits."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(channels, classes, 1),
    )


class Residual(nn.Sequential):
    """Two 3x3 convolutions without bias, whose output is added to their input.

    Args:
        channels: channels of input and output.
        last_relu: whether a ReLU follows the second convolution, before the sum.
    """

    def __init__(self, channels: int, *, last_relu: bool = True) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            *[nn.ReLU(inplace=True)] * last_relu,
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x
