"""Pyramid pooling (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from fewseg.model.layer.resize import resize, resize_like


class PyramidPooling(nn.Module):
    """Append the means of the features over increasingly fine grids to the features themselves.

    Args:
        channels: channels of the features.
        reduced: channels of every pooled branch.
        bins: side lengths of the grids.
        normalise: whether the branches have a BatchNorm.
    """

    def __init__(
        self, channels: int, reduced: int, bins: Sequence[int] = (1, 2, 3, 6), *, normalise: bool = True
    ) -> None:
        super().__init__()
        self.reduced = reduced
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(grid),
                nn.Conv2d(channels, reduced, 1, bias=False),
                *[nn.BatchNorm2d(reduced)] * normalise,
                nn.ReLU(inplace=True),
            )
            for grid in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B,channels,h,w] -> [B,channels+len(bins)*reduced,h,w]."""
        return torch.cat([x, *(resize_like(branch(x), x) for branch in self.features)], 1)

    def convolve(self, x: Tensor, convolution: nn.Conv2d) -> Tensor:
        """Return ``convolution(self(x))`` at lower cost: half of it if the branches have half the channels.

        Upsampling is linear, so a branch is convolved on its own few cells, and the result is upsampled.

        Args:
            x: features [B,channels,h,w].
            convolution: a convolution whose padding keeps the size.
        """
        widths = [x.shape[1]] + [self.reduced] * len(self.features)
        weight, *weights = convolution.weight.split(widths, dim=1)
        convolved = conv2d(x, weight, convolution.bias, padding=convolution.padding)
        for branch, weight in zip(self.features, weights, strict=True):
            convolved += _convolve_upsampled(branch(x), weight, x.shape[-2:])
        return convolved


def _convolve_upsampled(x: Tensor, weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return [B,C,i,j] upsampled to ``size`` and convolved with [O,C,k,k]; convolution comes first."""
    outputs, inputs, taps = weight.shape[:3]
    rows, columns = (_shifted_upsampling(x, *sizes, taps) for sizes in zip(x.shape[-2:], size, strict=True))
    products = weight.permute(2, 3, 0, 1).reshape(-1, inputs) @ x.flatten(2)
    products = products.view(len(x), taps, taps, outputs, *x.shape[-2:])
    wide = torch.einsum("brsoij,swj->broiw", products, columns)
    return torch.einsum("broiw,rhi->bhwo", wide, rows).permute(0, 3, 1, 2)


def _shifted_upsampling(x: Tensor, cells: int, size: int, taps: int) -> Tensor:
    """Return, for every tap of a kernel, the matrix [size,cells] that upsamples and shifts along an axis."""
    identity = torch.eye(cells, dtype=x.dtype, device=x.device)
    upsampling = resize(identity[None, ..., None], (size, 1))[0, ..., 0]
    padded = pad(upsampling, (taps // 2, taps // 2))
    return torch.stack([padded[:, tap : tap + size].T for tap in range(taps)])
