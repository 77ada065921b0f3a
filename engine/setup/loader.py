"""A data loader that reports full shared memory and dead workers, and can be stopped while it waits."""

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
"""Seconds of waiting between two checks of the workers and of requests to stop."""

_TOGETHER = 10.0
"""Seconds of waiting after which one of several processes stops alone, not with all others after a step."""

_PATIENCE = 60.0
"""Seconds without a batch after which a warning is logged; slow data is no error, so the run waits on."""

_CURE = (
    "give it more (docker run --shm-size 8g; elsewhere mount -o remount,size=8g /dev/shm), take fewer "
    "workers, or load without any: --opts workers 0"
)


class Loader(DataLoader[Any]):
    """A ``DataLoader`` that fails with a one-line error, and can be stopped while it waits for a batch.

    Attributes:
        check: called regularly while the loader waits for a worker.
    """

    def __init__(self, dataset: Any, *, collate_fn: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(dataset, collate_fn=_Shared(collate_fn), **options)
        self.check: Check = nothing

    def batches(self, check: Check) -> Iterator[Any]:
        """Yield the batches.

        Args:
            check: called while waiting for a batch; may raise to stop.

        Raises:
            UserError: shared memory is full.
        """
        self.check = check
        yield from self

    def _get_iterator(self) -> _BaseDataLoaderIter:
        return _Waiting(self) if self.num_workers else super()._get_iterator()


class _Waiting(_MultiProcessingDataLoaderIter):
    """An iterator that checks for requests to stop while it waits; torch's own waits for ever."""

    def __init__(self, loader: Loader) -> None:
        self._loader = weakref.proxy(loader)  # the loader owns this object; a cycle would keep workers alive
        try:
            super().__init__(loader)
        except OSError as failure:
            self._shutdown = True  # an incomplete iterator cannot be shut down
            reason = failure.strerror or failure
            raise UserError(
                f"the loader's workers cannot start ({reason}); shared memory: {_CURE}"
            ) from failure

    def _get_data(self) -> Any:
        started, patience = time.monotonic(), _PATIENCE
        while True:
            success, batch = self._try_get_data(_LOOK)  # raises if a worker died
            if success:
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
    """Collates items, and in a worker moves the batch into shared memory at once.

    Otherwise the thread that sends the batch would do so. It loses the batch if that memory is full, and the
    loader would wait for the batch for ever.

    Attributes:
        collate: collates the items.
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
    """Turn the error of a dead loader worker, raised anywhere in the body, into one line.

    Raises:
        UserError: a worker died.
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
    """Yield the tensors in nested tuples, lists and dataclasses."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from _tensors(part)
    elif is_dataclass(batch):
        for entry in fields(batch):
            yield from _tensors(getattr(batch, entry.name))
