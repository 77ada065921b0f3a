"""Masks at feature resolution, and the prototypes pooled under them."""

from __future__ import annotations

from torch import Tensor


def foreground(mask: Tensor) -> Tensor:
    """Turn masks of 0, 1 and 255, [B,H,W], into float foreground [B,1,H,W]; void counts as background."""
    return (mask == 1).float().unsqueeze(1)


def masked_average_pool(features: Tensor, weight: Tensor, epsilon: float = 5e-4) -> Tensor:
    """Average ``features`` [B,C,h,w] under ``weight`` [B,1,h,w] -> prototypes [B,C].

    ``epsilon`` is added to the sum of the weights (PFENet's 0.0005), so an empty mask gives zeros.
    """
    return (features * weight).sum((2, 3)) / (weight.sum((2, 3)) + epsilon)


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
