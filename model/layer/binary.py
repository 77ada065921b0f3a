"""Networks that say foreground or not by one logit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from fewseg.model.episode import IGNORE
from fewseg.model.layer.loss import binary_tasks


def two_logits(foreground: Tensor) -> Tensor:
    """Turn foreground logits [B,1,h,w] into those of background and foreground, [B,2,h,w]."""
    return torch.cat([torch.zeros_like(foreground), foreground], 1)


def pixel_binary_loss(
    logits: Tensor,
    label: Tensor,
    *,
    kind: Literal["bce", "mse"] = "bce",
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Compare the foreground's probability with 0 and 1, pixel by pixel; void pixels do not count.

    Args:
        logits: [B,1+N,H,W], way by way against the background.
        label: [B,H,W] of 0..N and 255.
        kind: cross-entropy, or the squared error of the probability.
        reduction: the mean over all pixels, or the mean over the ways of the sum over theirs.
    """
    pairs, own = binary_tasks(logits, label)
    logit, counted = pairs[:, 1] - pairs[:, 0], own != IGNORE
    target = (own == 1).to(logit.dtype)
    if kind == "bce":
        loss = binary_cross_entropy_with_logits(logit, target, reduction="none")
    else:
        loss = mse_loss(logit.sigmoid(), target, reduction="none")
    return (loss * counted).sum() / (counted.sum().clamp_min(1) if reduction == "mean" else len(own))
