"""Dense comparison: vectors tiled over a feature map, concatenated with it and convolved, at lower cost.

Zhang et al., "CANet", CVPR 2019, section 4.1. A tiled vector is the same at every position, so each weight of
the kernel adds a constant to all outputs except near the border, where it falls on the padding. The vectors
are therefore never tiled, and the maps are convolved only once for any number of vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, unfold

from fewseg.model.layer.block import activation


class TiledConv(nn.Conv2d):
    """3x3 convolution that keeps the spatial size, over maps and vectors that are tiled over the same grid.

    Args:
        maps, vectors: channels of the maps, which come first in the weights, and of the vectors.
        outputs: output channels.
        dilation: dilation of the kernel.
    """

    def __init__(self, maps: int, vectors: int, outputs: int, dilation: int = 1) -> None:
        super().__init__(maps + vectors, outputs, 3, padding=dilation, dilation=dilation)
        self.maps = maps

    def over_maps(self, feature: Tensor) -> Tensor:
        """Return the contribution of maps [B,maps,h,w] and of the bias, [B,outputs,h,w]."""
        weight = self.weight[:, : self.maps]
        return conv2d(feature, weight, self.bias, padding=self.padding, dilation=self.dilation)

    def over_vectors(self, vectors: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Return the contribution of vectors [B,vectors] tiled over ``grid`` (h, w), [B,outputs,h,w]."""
        taps = torch.einsum("bc,ocij->boij", vectors, self.weight[:, self.maps :]).flatten(2)
        padding = self.dilation  # which keeps the grid
        inside = unfold(taps.new_ones(1, 1, *grid), self.kernel_size, self.dilation, padding)[0]
        return (taps @ inside).unflatten(2, grid)


class DenseComparison(nn.Module):
    """A tiled convolution and its activation, for any number of prototypes.

    Args:
        channels: channels of the feature, of the prototypes and of the output.
        normalise: whether BatchNorm precedes the activation.
        dropout: share of channels that are dropped after the activation.
    """

    def __init__(self, channels: int, *, normalise: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = TiledConv(channels, channels, channels, dilation=2)
        self.finish = activation(channels, normalise=normalise, dropout=dropout)

    def forward(self, compared: Tensor, prototypes: Tensor) -> list[Tensor]:
        """Compare a query with P prototypes, one after the other -> P maps [B,C,h,w].

        Args:
            compared: ``conv.over_maps`` of the query's feature, [B,C,h,w].
            prototypes: [B,P,C].
        """
        grid = compared.shape[-2:]
        return [
            self.finish(compared + self.conv.over_vectors(prototype, grid))
            for prototype in prototypes.unbind(1)
        ]
