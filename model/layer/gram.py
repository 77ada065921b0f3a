"""BAM's adjustment factor: the difference of two scenes by the Gram matrices of their low-level features.

Lang et al., "Learning What Not to Segment", CVPR 2022, section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fewseg.model.layer.precision import in_float32
from fewseg.model.layer.resize import resize_like


@in_float32
def gram_matrix(features: Tensor) -> Tensor:
    """Return the channel-by-channel cosines [B,C,C] of feature maps [B,C,h,w]."""
    flat = features.flatten(2)
    norm = flat.norm(dim=2)
    return torch.bmm(flat, flat.transpose(1, 2)) / (norm[:, :, None] * norm[:, None, :] + 1e-7)


def scene_gram(features: Mapping[str, Tensor], name: str) -> Tensor:
    """Return the Gram matrix of the named feature, resized to the deeper middle feature if that is given."""
    return gram_matrix(resize_like(features[name], features.get("middle.1", features[name])))


@in_float32
def gram_distance(query: Tensor, support: Tensor) -> Tensor:
    """Return the Frobenius distances [B,K], divided by C, of Gram matrices [B,C,C] and [B,K,C,C]."""
    difference = query.unsqueeze(1) - support
    return difference.flatten(2).norm(dim=2) / query.shape[-1]
