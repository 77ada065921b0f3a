"""The pixel loss that all methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewseg.model.episode import IGNORE
from fewseg.model.layer.resize import resize

Average = Callable[[Tensor], Tensor]
"""Returns the mean of a tensor over all processes."""

_AVERAGE: ContextVar[Average | None] = ContextVar("average over processes", default=None)


@contextmanager
def means_over_processes(average: Average | None) -> Iterator[None]:
    """Let losses in the body be means over the labelled pixels of all processes, not of this one alone.

    The mean of the processes' losses then equals the loss of one process on the whole batch, although they
    have different numbers of labelled pixels. All processes must compute the same losses in the same order.

    Args:
        average: averages over the processes; None leaves the losses as they are.
    """
    before = _AVERAGE.set(average)
    try:
        yield
    finally:
        _AVERAGE.reset(before)


def mean_count(counted: Tensor) -> Tensor:
    """Return how many pixels a bool tensor counts, on average over the processes that train together."""
    average, count = _AVERAGE.get(), counted.sum()
    return count if average is None else average(count)


def pixel_cross_entropy(
    logits: Tensor, label: Tensor, *, align_corners: bool = True, ignore_void: bool = True
) -> Tensor:
    """Return the mean cross-entropy over the pixels.

    Args:
        logits: [B,C,h,w] at any resolution, which are resized bilinearly to the label; or [B,N,2,h,w], the
            binary logits of each of N ways.
        label: [B,H,W] of 0..C-1 (0..N) and 255.
        align_corners: whether corners are aligned when logits are resized.
        ignore_void: whether void pixels (255) are ignored; otherwise they are background.
    """
    if not ignore_void:
        label = label.masked_fill(label == IGNORE, 0)
    if logits.ndim == 5:
        logits, label = binary_tasks(logits, label)
    logits = resize(logits, label.shape[-2:], align_corners=align_corners)
    if _AVERAGE.get() is None:
        return cross_entropy(logits, label, ignore_index=IGNORE)
    return cross_entropy(logits, label, ignore_index=IGNORE, reduction="sum") / mean_count(label != IGNORE)


def binary_tasks(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Split N ways into one binary task each: logits [B*N,2,H,W] and labels [B*N,H,W] of 0, 1 and 255.

    Args:
        logits: [B,1+N,H,W], or [B,N,2,H,W].
        label: [B,H,W] of 0..N and 255.
    """
    if logits.ndim == 4:
        background, objects = logits[:, :1], logits[:, 1:]
        logits = torch.stack([background.expand_as(objects), objects], 2)
    ways = torch.arange(1, logits.shape[1] + 1, device=label.device).view(1, -1, 1, 1)
    label = label.unsqueeze(1)
    own = torch.where(label == IGNORE, label, (label == ways).to(label.dtype))
    return logits.flatten(0, 1), own.flatten(0, 1)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of named losses, which training minimises."""
    first, *others = losses.values()
    return sum(others, first)
