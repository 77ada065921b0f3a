"""Pyramid pooling (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.layer.resize import resize_like


class PyramidPooling(nn.Module):
    """Append the features' means over ever finer grids to the features themselves.

    Args:
        channels: of the features.
        reduced: channels of every pooled branch.
        bins: side lengths of the grids.
    """

    def __init__(self, channels: int, reduced: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(grid),
                nn.Conv2d(channels, reduced, 1, bias=False),
                nn.BatchNorm2d(reduced),
                nn.ReLU(inplace=True),
            )
            for grid in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B,channels,h,w] -> [B,channels+len(bins)*reduced,h,w]."""
        return torch.cat([x, *(resize_like(branch(x), x) for branch in self.features)], 1)
