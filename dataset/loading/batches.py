"""The items of every batch: the same global batches for any number of processes and after any restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch.utils.data import Sampler

from fewseg.dataset.episodes.manifest import train_order
from fewseg.util.errors import ConfigError

Batch = TypeVar("Batch")

Key = tuple[int, int]
"""Epoch and index, on which an item of a training set depends, beside the seed."""


class EpochOrder:
    """The shuffled order of the items in each epoch; the order of the latest epoch is cached.

    Args:
        length: number of items in an epoch.
        seed: seed of the orders.
    """

    def __init__(self, length: int, seed: int) -> None:
        self._length, self._seed = length, seed
        self._epoch, self._order = -1, list[int]()

    def item(self, epoch: int, index: int) -> int:
        """Return the position of the item that is at ``index`` in an epoch."""
        if self._epoch != epoch:
            self._epoch, self._order = epoch, train_order(self._length, self._seed, epoch)
        return self._order[index]


def as_loaded(batch: Batch) -> Batch:
    """Return the batch unchanged: a loader's default collate function would process it again."""
    return batch


class EpochBatches(Sampler[list[Key]]):
    """Batches of (epoch, index) for one process; an incomplete last batch is dropped.

    The keys carry the epoch to the loader's workers, which therefore need no restart for a new epoch.

    Args:
        length: number of items in an epoch.
        batch_size: number of items in a global batch.
        rank, processes: this process takes every ``processes``-th item of a global batch, from ``rank`` on.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        if batch_size % processes:
            raise ConfigError(
                f"Train.batch_size {batch_size}: must be a multiple of the {processes} processes"
            )
        if length < batch_size:
            raise ConfigError(f"Train.batch_size {batch_size}: the training list has only {length} images")
        self.length, self.batch_size, self.rank, self.processes = length, batch_size, rank, processes
        self.epoch, self.step, self.end = 0, 0, len(self)

    def start(self, epoch: int, step: int = 0, end: int | None = None) -> None:
        """Set the epoch of the next iteration, how many of its batches are done, and where it ends."""
        self.epoch, self.step, self.end = epoch, step, len(self) if end is None else end

    def __len__(self) -> int:
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.step, self.end):
            first = step * self.batch_size
            yield [(self.epoch, i) for i in range(first + self.rank, first + self.batch_size, self.processes)]
