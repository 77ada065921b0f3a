"""Batches from worker processes, where shared memory may be full, workers may die, and a run may be stopped
while it waits."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from fewseg.engine.setup.interrupt import Check, nothing
from fewseg.util import distributed
from fewseg.util.errors import UserError
from fewseg.util.log import get_log

_LOOK = 1.0
"""Seconds of waiting between two looks at the workers and at requests to stop."""

_TOGETHER = 10.0
"""Seconds after which one of several processes stops alone; before, all of them stop after the same step."""

_PATIENCE = 60.0
"""Seconds without a batch after which a line says so. Slow data is no error, so the run goes on waiting."""

_CURE = (
    "give it more (docker run --shm-size 8g; elsewhere mount -o remount,size=8g /dev/shm), take fewer "
    "workers, or load without any: --opts workers 0"
)


class Loader(DataLoader[Any]):
    """A ``DataLoader`` that fails with one clear line, and whose reader can be stopped while it waits.

    Attributes:
        check: called now and then while the reader waits for a worker.
    """

    def __init__(self, dataset: Any, *, collate_fn: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(dataset, collate_fn=_Shared(collate_fn), **options)
        self.check: Check = nothing

    def batches(self, check: Check) -> Iterator[Any]:
        """Yield the batches.

        Args:
            check: may raise while a batch is waited for.

        Raises:
            UserError: shared memory is full.
        """
        self.check = check
        yield from self

    def _get_iterator(self) -> _BaseDataLoaderIter:
        return _Waiting(self) if self.num_workers else super()._get_iterator()


class _Waiting(_MultiProcessingDataLoaderIter):
    """Looks up while it waits; torch's own iterator waits for ever and hears no request to stop."""

    def __init__(self, loader: Loader) -> None:
        self._loader = weakref.proxy(loader)  # which owns this iterator; a cycle would keep the workers alive
        try:
            super().__init__(loader)
        except OSError as failure:
            self._shutdown = True  # what is incomplete cannot be shut down
            reason = failure.strerror or failure
            raise UserError(
                f"the loader's workers cannot start ({reason}); shared memory: {_CURE}"
            ) from failure

    def _get_data(self) -> Any:
        started, patience = time.monotonic(), _PATIENCE
        while True:
            found, batch = self._try_get_data(_LOOK)  # raises if a worker died
            if found:
                return batch
            waited = time.monotonic() - started
            if distributed.world_size() == 1 or waited > _TOGETHER:
                self._loader.check()
            if waited > patience:
                patience *= 2
                get_log("loader").warning(
                    "no batch for %.0f seconds, though all %d workers live: is the disk slow, or a worker "
                    "stuck? Ctrl-C stops the run; with --opts workers 0 it shows where it waits",
                    *(waited, len(self._workers)),
                )


@dataclass(frozen=True)
class _Shared:
    """Joins items, and in a worker puts the batch into shared memory at once.

    Otherwise the thread that sends it would do so, which loses the batch where that memory is full, and the
    reader would wait for it for ever.

    Attributes:
        collate: joins the items.
    """

    collate: Callable[[Any], Any]

    def __call__(self, loaded: Any) -> Any:
        batch = self.collate(loaded)
        if get_worker_info() is None:
            return batch
        tensors = list(_tensors(batch))
        try:
            for tensor in tensors:
                tensor.share_memory_()
        except (RuntimeError, OSError) as failure:
            size = sum(tensor.nbytes for tensor in tensors) / 2**20
            reason = str(failure).strip().splitlines()[0]
            raise UserError(
                f"a batch of {size:.0f} MB does not fit into shared memory ({reason}): {_CURE}"
            ) from failure
        return batch


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Tell the death of a loader's worker in one line.

    Raises:
        UserError: a worker died; it may have been noticed anywhere in the body.
    """
    try:
        yield
    except RuntimeError as failure:
        reason = str(failure).partition(" Details")[0].rstrip(". ")
        if not reason.startswith("DataLoader worker"):
            raise
        memory = "shared memory" if "shared memory" in reason else "memory"
        raise UserError(f"{reason}; if it ran out of {memory}: {_CURE}") from failure


def _tensors(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples and records."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from _tensors(part)
    elif is_dataclass(batch):
        for entry in fields(batch):
            yield from _tensors(getattr(batch, entry.name))
