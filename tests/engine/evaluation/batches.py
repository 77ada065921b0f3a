"""Batches of a chosen size on a CPU, by a memory that pretends to have room for them."""

from __future__ import annotations

import pytest

COST, BUDGET = 1 << 40, 1 << 33
"""Bytes that an episode takes, and more bytes than any test sets aside for encodings."""


class Room:
    """A memory with room for ``size`` episodes; its batches take half of what is free."""

    def __init__(self, size: int) -> None:
        self.size = size

    def free(self) -> int:
        return 2 * COST * self.size + BUDGET

    def begin(self) -> None:
        """Begin to watch."""

    def peak(self) -> int:
        return COST


def force_batches(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let evaluation take batches of ``size`` after its first visit."""
    monkeypatch.setattr("fewseg.engine.evaluation.runner.memory_of", lambda device: Room(size))
