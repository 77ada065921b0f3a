"""The error-prone region: the foreground that is lost when a mask is downsampled to the grid of the features.

C. Lang et al., "Retain and Recover: Delving into Information Loss for Few-Shot Segmentation", IEEE TIP 2023.
The region of the support has a branch of its own in the merge, that of the query a loss of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from fewseg.model.episode import IGNORE
from fewseg.model.layer.pooling import foreground

EPSILON = 1e-7
"""Added to the area of an object by which the area of its region is divided."""


def resampled(mask: Tensor, grid: Tensor) -> Tensor:
    """Downsample a mask [B,1,H,W] to the grid of ``grid`` by nearest neighbours, and upsample it again."""
    small = interpolate(mask, grid.shape[-2:], mode="nearest")
    return interpolate(small, mask.shape[-2:], mode="nearest")


def lost_foreground(mask: Tensor, grid: Tensor) -> Tensor:
    """Return the error-prone region [B,1,H,W] of a mask of that size on the grid of ``grid`` [B,*,h,w]."""
    return (mask - resampled(mask, grid)).clamp_min(0)


def merge_regions(
    merges: Sequence[nn.Module],
    feature: Tensor,
    prototypes: Sequence[Tensor],
    maps: Sequence[Tensor],
    share: Tensor | None = None,
) -> Tensor:
    """Merge a query feature with its guidance, by a branch for the object and one for its error-prone region.

    Args:
        merges: the layer of the object's branch and, where there is one, that of the region's branch.
        feature: query feature [B,C,h,w].
        prototypes: the prototype of every branch at every position of the query, [B,C,h,w].
        maps: further guidance of both branches, [B,*,h,w].
        share: area of the region as a share of the object's, [B], with which its branch counts.

    Returns:
        The sum of the branches, [B,C,h,w].
    """
    merged, *error_prone = (
        merge(torch.cat([feature, prototype, *maps], 1))
        for merge, prototype in zip(merges, prototypes, strict=True)
    )
    for branch in error_prone:
        assert share is not None
        merged = merged + share[:, None, None, None] * branch
    return merged


def error_prone_loss(logits: Tensor, label: Tensor, grid: Tensor) -> Tensor:
    """Return the cross-entropy on the pixels that change when the query mask is resampled, times their share.

    It is zero if no pixel changes. Void pixels next to the object count as background where the resampled
    mask covers them, as published.

    Args:
        logits: [B,2,H,W].
        label: 0, 1 or 255, [B,H,W].
        grid: a map [B,*,h,w] at the resolution of the features, to which the mask is downsampled.
    """
    mask = foreground(label)
    change = mask - resampled(mask, grid)
    misplaced = torch.full_like(label, IGNORE)
    misplaced = misplaced.masked_fill(change[:, 0] > 0, 1).masked_fill(change[:, 0] < 0, 0)
    lost = change.clamp_min(0).mean((1, 2, 3)) / (mask.mean((1, 2, 3)) + EPSILON)
    errors = cross_entropy(logits, misplaced, ignore_index=IGNORE, reduction="sum")
    return lost.mean() * errors / (misplaced != IGNORE).sum().clamp_min(1)
