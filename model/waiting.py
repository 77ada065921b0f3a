"""Where reading a value makes the host wait, so that shapes must not depend on values.

A GPU works behind the host. Whenever the host needs a value, such as the number of positions under a mask, it
waits until the GPU has computed everything before it, and then the GPU waits for the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_SHARES: ContextVar[tuple[float, float]] = ContextVar("shares of the rows and columns", default=(1.0, 1.0))
_MARGIN = 4
"""By how many rows and columns an object may grow on a coarser grid: resizing reaches one position further
to either side, as does each of the coarser grids before it, all of them together by less than one position of
the last; and one is cut on either side."""


def would_wait(tensor: Tensor) -> bool:
    """Return whether the host would wait for the values of ``tensor``; on a CPU they are simply there.

    Where the form that is fast on a CPU needs such values, a form of fixed shape takes its place elsewhere.
    Users call it through this module, so that tests can choose the form on a CPU.
    """
    return tensor.device.type != "cpu"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``; the host does not wait for its copy from main memory to a GPU."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def known_objects(masks: Sequence[Tensor]) -> Iterator[None]:
    """Let supports be encoded in the body on a GPU with no more positions than their objects need.

    Args:
        masks: their masks of 0, 1, 254 and 255, [H,W], which are still in main memory.
    """
    extents = [_extent(mask == 1) for mask in masks]
    before = _SHARES.set((max(rows for rows, _ in extents), max(columns for _, columns in extents)))
    try:
        yield
    finally:
        _SHARES.reset(before)


def most_positions(grid: tuple[int, ...]) -> int:
    """Return how many positions of a grid (h, w) an object may cover; all unless objects are known."""
    rows, columns = (
        min(side, math.ceil(share * side) + _MARGIN) for share, side in zip(_SHARES.get(), grid, strict=True)
    )
    return rows * columns


def _extent(inside: Tensor) -> tuple[float, float]:
    """Return the shares of the rows and of the columns of a mask from its first to its last pixel."""
    rows, columns = (_length(inside.any(axis)) / inside.shape[1 - axis] for axis in (1, 0))
    return rows, columns


def _length(line: Tensor) -> int:
    """Return the length of a line from its first to its last True."""
    found = line.nonzero()
    return int(found[-1] - found[0]) + 1 if len(found) else 0
