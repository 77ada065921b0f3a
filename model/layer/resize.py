"""Bilinear resizing of feature maps and logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate


def resize(x: Tensor, size: tuple[int, ...], *, align_corners: bool = True) -> Tensor:
    """Resize maps [B,C,h,w] bilinearly to ``size`` (height, width)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return interpolate(x, size, mode="bilinear", align_corners=align_corners)


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Resize maps to the grid of ``reference`` (corners aligned)."""
    return resize(x, reference.shape[-2:])
