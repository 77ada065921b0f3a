"""How many images are encoded, and how many episodes decoded, at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

MOST = 64
"""The largest batch, which fills any GPU."""

_SHARE = 0.5
"""Share of the free memory that a batch may take, since images differ and the allocator leaves gaps."""


class Memory(Protocol):
    """The memory of a device, in bytes."""

    def free(self) -> int:
        """Return how much can still be allocated."""

    def begin(self) -> None:
        """Begin to watch how much is allocated."""

    def peak(self) -> int:
        """Return the most that was allocated at once since ``begin``, beyond what was allocated then."""


class CudaMemory:
    """The memory of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0

    def free(self) -> int:
        """Return how much can still be allocated, which includes what torch has reserved but does not use."""
        free, _ = torch.cuda.mem_get_info(self._device)
        reserved, used = torch.cuda.memory_reserved(self._device), torch.cuda.memory_allocated(self._device)
        return free + reserved - used

    def begin(self) -> None:
        """Begin to watch how much is allocated."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def peak(self) -> int:
        """Return the most that was allocated at once since ``begin``, beyond what was allocated then."""
        return torch.cuda.max_memory_allocated(self._device) - self._before


class BatchSize:
    """The size of batches: one at first; then as many as fit into the memory, by the cost of the first ones.

    On a CPU it stays one, because larger batches round differently and are no faster.

    Args:
        memory: the memory of the device; None: batches of one.
        kept: bytes that are set aside for the encodings that later episodes need again.

    Attributes:
        now: the present size.
    """

    def __init__(self, memory: Memory | None, kept: float = 0.0) -> None:
        self.now = 1
        self._memory, self._kept, self._cost = memory, kept, 1

    @contextmanager
    def measured(self) -> Iterator[None]:
        """A context in which one episode is encoded and decoded; the costliest counts."""
        if self._memory is None or self.now > 1:
            yield
            return
        self._memory.begin()
        yield
        self._cost = max(self._cost, self._memory.peak())

    def grow(self) -> None:
        """Take the size that fits into the memory."""
        if self._memory is not None and self.now == 1:
            room = _SHARE * (self._memory.free() - self._kept)
            self.now = max(1, min(MOST, int(room / self._cost)))


def memory_of(device: torch.device) -> Memory | None:
    """Return the memory by which batches are sized on a device; None on a CPU."""
    return CudaMemory(device) if device.type == "cuda" else None
