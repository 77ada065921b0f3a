"""The pixel loss that all methods share."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from model.interface import IGNORE
from model.layer.resize import resize


def pixel_cross_entropy(logits: Tensor, label: Tensor, *, align_corners: bool = True) -> Tensor:
    """Mean cross-entropy over the pixels that are not void.

    Args:
        logits: [B,C,h,w] at any resolution; enlarged bilinearly to the label.
        label: [B,H,W] of 0..C-1 and 255.
    """
    logits = resize(logits, tuple(label.shape[-2:]), align_corners=align_corners)
    return cross_entropy(logits, label, ignore_index=IGNORE)
