"""Masks at feature resolution, and the prototypes pooled under them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fewseg.model import waiting


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
    """Average features [B,C,h,w], upsampled bilinearly to the mask [B,H,W], under that mask -> [B,C].

    Instead of upsampling the features, the transposed interpolation is applied to the mask. This computes the
    same sum in another order, without C maps of image size. ``epsilon`` is added to the area of the mask, so
    that an empty one gives zeros.
    """
    weight, area = pixel_weights(mask.to(feature), feature.shape[-2:], align_corners=align_corners)
    return torch.einsum("bchw,bhw->bc", feature, weight) / (area + epsilon).unsqueeze(1)


def pixel_weights(
    mask: Tensor, size: tuple[int, ...], *, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Distribute the pixels of masks [B,H,W] among the positions of a grid (h, w).

    The share of a position in a pixel is its weight in the bilinear interpolation of the grid to the mask.

    Returns:
        The weight of every position [B,h,w], and the sum of every mask [B].
    """
    rows, columns = (
        _interpolation_matrix(small, large, mask, align_corners)
        for small, large in zip(size, mask.shape[-2:], strict=True)
    )
    return rows.T @ mask @ columns, mask.sum((1, 2))


def _interpolation_matrix(small: int, large: int, like: Tensor, align_corners: bool) -> Tensor:
    """Return the matrix [large,small] of bilinear interpolation along one axis."""
    unit = torch.eye(small, dtype=like.dtype, device=like.device)
    return interpolate(unit[None], large, mode="linear", align_corners=align_corners)[0].T


def tile(prototype: Tensor, like: Tensor) -> Tensor:
    """Repeat prototypes [B,C] at every position of the grid of ``like`` [B,*,h,w] -> [B,C,h,w] (a view)."""
    return prototype[:, :, None, None].expand(-1, -1, *like.shape[-2:])


def gather_positions(features: Tensor, inside: Tensor) -> Tensor:
    """Gather the feature vectors at selected positions, in order -> [B,C,P].

    Images with fewer than P positions are padded with zero vectors at the end. On a CPU, P is the largest
    number of selected positions of an image, at least one. Elsewhere the host does not know that number, so P
    is the largest that the extent of the objects allows (see ``waiting.known_objects``), or the number of
    positions of the grid where that is not known either.

    Args:
        features: [B,C,h,w].
        inside: whether a position is selected, bool [B,1,h,w].
    """
    flat, selected = features.flatten(2), inside.flatten(1)
    if waiting.would_wait(features):
        return _selected_first(flat, selected, waiting.most_positions(tuple(inside.shape[-2:])))
    gathered = flat.new_zeros(*flat.shape[:2], max(1, int(selected.sum(1).max())))
    for image, (vectors, mask) in enumerate(zip(flat, selected, strict=True)):
        inner = vectors[:, mask]
        gathered[image, :, : inner.shape[1]] = inner
    return gathered


def _selected_first(flat: Tensor, selected: Tensor, most: int) -> Tensor:
    """Move the selected of the vectors [B,C,n] to the front, set all others to zero, and keep ``most``."""
    last, order = (~selected).to(torch.uint8).sort(dim=1, stable=True)
    torch._assert_async(last[:, most:].all(), "an object covers more positions than its mask allows")
    last, order = last[:, :most].bool(), order[:, :most]
    gathered = flat.gather(2, order.unsqueeze(1).expand(-1, flat.shape[1], -1))
    return gathered.masked_fill(last.unsqueeze(1), 0)
