"""Which items make a batch: the same global batches for any number of processes and after any restart."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler

from fewseg.util.errors import ConfigError

Key = tuple[int, int]
"""Epoch and index: what an item of a training set is a pure function of."""


class EpochBatches(Sampler[list[Key]]):
    """Batches of (epoch, index) for one process; an incomplete last batch is dropped.

    The keys carry the epoch to the workers, so these can live on from epoch to epoch.

    Args:
        length: items of an epoch.
        batch_size: items of a global batch.
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
        self.epoch, self.step = 0, 0

    def start(self, epoch: int, step: int = 0) -> None:
        """Say which epoch the next iteration runs through, and how many of its batches are already done."""
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.step, len(self)):
            first = step * self.batch_size
            yield [(self.epoch, i) for i in range(first + self.rank, first + self.batch_size, self.processes)]
