"""BAM's adjustment factor: how much two scenes differ in the Gram matrices of their low-level features (Lang et al., eq. 8-10)."""

from __future__ import annotations

import torch
from torch import Tensor


def gram_matrix(features: Tensor) -> Tensor:
    """Return the channel-by-channel cosines [B,C,C] of feature maps [B,C,h,w]."""
    flat = features.flatten(2)
    norm = flat.norm(dim=2)
    return torch.bmm(flat, flat.transpose(1, 2)) / (norm[:, :, None] * norm[:, None, :] + 1e-7)


def gram_distance(query: Tensor, support: Tensor) -> Tensor:
    """Return the Frobenius distances [B,K] of query Gram matrices [B,C,C] and support ones [B,K,C,C], over C."""
    difference = query.unsqueeze(1) - support
    return difference.flatten(2).norm(dim=2) / query.shape[-1]
