"""Segmenting by the nearest prototype."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def cosine_scores(feature: Tensor, prototype: Tensor, scale: float) -> Tensor:
    """Compare features [B,C,h,w] with prototypes [B,P,C] -> cosines times ``scale``, [B,P,h,w].

    A prototype of zeros, of what has no pixel, is at cosine 0 to everything.
    """
    scores = [cosine_similarity(feature, p[:, :, None, None], dim=1) for p in prototype.unbind(1)]
    return scale * torch.stack(scores, 1)
