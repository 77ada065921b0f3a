"""PANet's alignment loss (Wang et al., ICCV 2019, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewseg.model.episode import IGNORE
from fewseg.model.layer.nearest_prototype import cosine_scores
from fewseg.model.layer.resize import resize

_EPSILON = 1e-5


def alignment_loss(query: Tensor, score: Tensor, support: Tensor, label: Tensor, scale: float) -> Tensor:
    """Segment the supports by the prototypes of the predicted query masks.

    A way that is predicted at no position has no prototype and does not contribute to the loss.

    Args:
        query: features of the queries [B,C,h,w].
        score: predicted scores of the queries, [B,1+N,h,w].
        support: features of the supports [B,N,K,C,h,w].
        label: masks of the supports with 0, 1 and 255, [B*N*K,H,W].
        scale: factor that turns cosines into logits.
    """
    predicted = (score.argmax(1).unsqueeze(3) == torch.arange(score.shape[1], device=score.device)).to(query)
    area = predicted.sum((1, 2))
    prototype = torch.einsum("bchw,bhwp->bpc", query, predicted) / (area + _EPSILON).unsqueeze(2)
    scores = score_supports(support, prototype, scale)
    loss = _mean_per_image(resize(scores, label.shape[-2:], align_corners=False), label)
    predicted_ways = (area[:, 1:] > 0).to(loss)
    return (loss.view(support.shape[:3]).mean(2) * predicted_ways).mean()


def score_supports(support: Tensor, prototype: Tensor, scale: float) -> Tensor:
    """Compare every support with the prototype of the background and that of its own way.

    Args:
        support: features [B,N,K,C,h,w].
        prototype: prototypes [B,1+N,C], the background's first.
        scale: factor that turns cosines into logits.

    Returns:
        Scores [B*N*K,2,h,w].
    """
    ways, shots = support.shape[1:3]
    pair = torch.stack([prototype[:, :1].expand(-1, ways, -1), prototype[:, 1:]], 2)
    return cosine_scores(support.flatten(0, 2), pair.flatten(0, 1).repeat_interleave(shots, 0), scale)


def _mean_per_image(logits: Tensor, label: Tensor) -> Tensor:
    """Return the mean cross-entropy over the labelled pixels of every image, [B]; 0 where there are none."""
    loss = cross_entropy(logits, label, ignore_index=IGNORE, reduction="none").sum((1, 2))
    return loss / (label != IGNORE).sum((1, 2)).clamp_min(1)
