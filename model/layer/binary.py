"""Functions for networks whose output is one foreground logit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from fewseg.model.episode import IGNORE
from fewseg.model.layer.loss import binary_tasks, mean_count


def two_logits(foreground: Tensor) -> Tensor:
    """Turn foreground logits [B,1,h,w] into logits of background and foreground, [B,2,h,w]."""
    return torch.cat([torch.zeros_like(foreground), foreground], 1)


def pixel_binary_loss(
    logits: Tensor,
    label: Tensor,
    *,
    kind: Literal["bce", "mse"] = "bce",
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Return the loss of the foreground's probability at every pixel; void pixels are ignored.

    Args:
        logits: [B,1+N,H,W]; every way is compared with the background.
        label: [B,H,W] of 0..N and 255.
        kind: cross-entropy, or the squared error of the probability.
        reduction: ``mean`` over all pixels; ``sum`` over the pixels of a way, then the mean over the ways.
    """
    binary_logits, binary_label = binary_tasks(logits, label)
    logit, counted = binary_logits[:, 1] - binary_logits[:, 0], binary_label != IGNORE
    target = (binary_label == 1).to(logit.dtype)
    if kind == "bce":
        loss = binary_cross_entropy_with_logits(logit, target, reduction="none")
    else:
        loss = mse_loss(logit.sigmoid(), target, reduction="none")
    return (loss * counted).sum() / (mean_count(counted).clamp_min(1) if reduction == "mean" else len(loss))
