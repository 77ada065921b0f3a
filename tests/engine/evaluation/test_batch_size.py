"""Batches take half of the free memory, by the cost of the first episodes."""

from __future__ import annotations

import pytest
import torch

from fewseg.engine.evaluation.batch_size import MOST, BatchSize, CudaMemory, memory_of

GIB = 1 << 30


class Card:
    """A card with some memory, on which episodes cost what a list says, one after the other."""

    def __init__(self, free: int, *costs: int) -> None:
        self.left, self.costs, self.watched = free, list(costs), 0

    def free(self) -> int:
        return self.left

    def begin(self) -> None:
        self.watched += 1

    def peak(self) -> int:
        return self.costs.pop(0)


def grown(card: Card, kept: float = 0.0, episodes: int = 1) -> int:
    size = BatchSize(card, kept)
    assert size.now == 1
    for _ in range(episodes):
        with size.measured():
            assert size.now == 1
    size.grow()
    return size.now


@pytest.mark.parametrize(
    ("free", "kept", "cost", "size"),
    [
        (10 * GIB, 0, GIB, 5),
        (10 * GIB, 4 * GIB, GIB, 3),  # the encodings that are kept need their part
        (10 * GIB, 4 * GIB, GIB + 1, 2),
        (10 * GIB, 9 * GIB, GIB, 1),
        (2 * GIB, 4 * GIB, GIB, 1),  # there is always room for one
        (500 * GIB, 0, GIB, MOST),
        (10 * GIB, 0, 0, MOST),
    ],
)
def test_the_size_follows_from_what_one_episode_takes(free, kept, cost, size):
    assert grown(Card(free, cost), kept) == size


def test_the_costliest_episode_counts():
    assert grown(Card(12 * GIB, GIB, 3 * GIB, 2 * GIB), episodes=3) == 2


def test_nothing_is_measured_once_batches_are_large():
    card = Card(12 * GIB, GIB)
    size = BatchSize(card)
    with size.measured():
        pass
    size.grow()
    with size.measured():
        pass
    card.left = 0
    size.grow()
    assert (size.now, card.watched) == (6, 1)


def test_on_a_cpu_everything_is_alone():
    assert memory_of(torch.device("cpu")) is None
    size = BatchSize(None)
    with size.measured():
        pass
    size.grow()
    assert size.now == 1


def test_a_card_counts_what_is_reserved_and_unused_as_free(monkeypatch):
    asked = {"mem_get_info": (3, 10), "memory_reserved": 5, "memory_allocated": 4, "max_memory_allocated": 9}
    for name, answer in asked.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    memory = memory_of(torch.device("cuda", 0))
    assert isinstance(memory, CudaMemory) and memory.free() == 3 + 5 - 4
    memory.begin()
    assert memory.peak() == 9 - 4
