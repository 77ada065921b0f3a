"""Work on many files in several processes, with a progress bar and never more than a few tasks in flight."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from fewseg.util.errors import DataError
from fewseg.util.progress import progress as progress_bar

Item = TypeVar("Item")
Done = TypeVar("Done")

CHUNK = 32
"""Items of one task."""

PARALLEL_FROM = 256
"""Fewer items are finished before workers have started."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work(
    function: Callable[[Item], Done],
    items: Sequence[Item],
    *,
    title: str,
    unit: str = "image",
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[Done]:
    """Yield ``function`` of every item, in order.

    Args:
        function: a function of a module, or a ``partial`` of one, so that it reaches other processes.
        workers: processes; one per core if None, this one alone if 0 or 1.

    Raises:
        DataError: as ``function`` raises it, or when a process was killed.
    """
    workers = cores() if workers is None else workers
    bar = progress_bar(None, title, total=len(items), unit=unit, disable=not progress)
    with bar:
        if workers <= 1 or len(items) < PARALLEL_FROM:
            for item in items:
                yield function(item)
                bar.update()
            return
        try:
            yield from _in_processes(function, items, workers, bar)
        except BrokenProcessPool:
            raise DataError(
                f"{title}: a process was killed, perhaps for lack of memory; run again with fewer --workers. "
                "What is finished is kept"
            ) from None


def _in_processes(
    function: Callable[[Item], Done], items: Sequence[Item], workers: int, bar: Any
) -> Iterator[Done]:
    chunks = (items[i : i + CHUNK] for i in range(0, len(items), CHUNK))
    # Fresh processes: a fork would copy the locks of whatever threads already run here.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            running = deque(
                pool.submit(_chunk, function, chunk)
                for _, chunk in zip(range(3 * workers), chunks, strict=False)
            )
            while running:
                done = running.popleft().result()
                following = next(chunks, None)
                if following is not None:
                    running.append(pool.submit(_chunk, function, following))
                yield from done
                bar.update(len(done))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _chunk(function: Callable[[Item], Done], items: Sequence[Item]) -> list[Done]:
    return [function(item) for item in items]
