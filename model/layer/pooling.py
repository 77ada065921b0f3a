"""Masks at feature resolution, and the prototypes pooled under them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def foreground(mask: Tensor) -> Tensor:
    """Turn masks of 0, 1 and 255, [B,H,W], into float foreground [B,1,H,W]; void counts as background."""
    return (mask == 1).float().unsqueeze(1)


def masked_average_pool(features: Tensor, weight: Tensor, epsilon: float = 5e-4) -> Tensor:
    """Average ``features`` [B,C,h,w] under ``weight`` [B,1,h,w] -> prototypes [B,C].

    ``epsilon`` is added to the sum of the weights (PFENet's 0.0005), so an empty mask gives zeros.
    """
    return (features * weight).sum((2, 3)) / (weight.sum((2, 3)) + epsilon)


def pool_at_image_resolution(
    feature: Tensor, mask: Tensor, *, align_corners: bool = False, epsilon: float = 1e-5
) -> Tensor:
    """Average features [B,C,h,w], enlarged bilinearly to the mask [B,H,W], under that mask -> [B,C].

    Instead of enlarging the features, the mask is brought to them by the transposed enlargement: the same sum
    in another order, without the C maps of image size. ``epsilon`` is added to the pixels of the mask, so
    that an empty one gives zeros.
    """
    weight, area = shrink_mask(mask.to(feature), feature.shape[-2:], align_corners=align_corners)
    return torch.einsum("bchw,bhw->bc", feature, weight) / (area + epsilon).unsqueeze(1)


def shrink_mask(mask: Tensor, size: tuple[int, ...], *, align_corners: bool = False) -> tuple[Tensor, Tensor]:
    """Share the pixels of masks [B,H,W] out among the positions of a grid, as enlarging the grid would.

    Returns:
        The weight of every position [B,h,w], and the sum of every mask [B].
    """
    rows, columns = (
        _enlargement(small, large, mask, align_corners)
        for small, large in zip(size, mask.shape[-2:], strict=True)
    )
    return rows.T @ mask @ columns, mask.sum((1, 2))


def _enlargement(small: int, large: int, like: Tensor, align_corners: bool) -> Tensor:
    """Return the matrix [large,small] of bilinear interpolation along one axis."""
    unit = torch.eye(small, dtype=like.dtype, device=like.device)
    return interpolate(unit[None], large, mode="linear", align_corners=align_corners)[0].T


def tile(prototype: Tensor, like: Tensor) -> Tensor:
    """Spread prototypes [B,C] over the grid of ``like`` [B,*,h,w] -> [B,C,h,w] (a view)."""
    return prototype[:, :, None, None].expand(-1, -1, *like.shape[-2:])


def gather_positions(features: Tensor, inside: Tensor) -> Tensor:
    """Gather the feature vectors at chosen positions -> [B,C,P], P the most that an image has, at least one.

    Images with fewer positions are padded with zero vectors at their end.

    Args:
        features: [B,C,h,w].
        inside: the choice, bool [B,1,h,w].
    """
    flat, chosen = features.flatten(2), inside.flatten(1)
    gathered = flat.new_zeros(*flat.shape[:2], max(1, int(chosen.sum(1).max())))
    for image, (vectors, mask) in enumerate(zip(flat, chosen, strict=True)):
        found = vectors[:, mask]
        gathered[image, :, : found.shape[1]] = found
    return gathered
