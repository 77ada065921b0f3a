"""A function of many files in several processes, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from fewseg.util.errors import DataError
from fewseg.util.progress import progress as progress_bar

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 32
"""Items of one task."""

PARALLEL_FROM = 256
"""Fewer items are finished before workers have started."""


def parallel_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    title: str,
    unit: str = "image",
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[Result]:
    """Yield ``function`` of every item, in order.

    Args:
        function: a function of a module, or a ``partial`` of one, so that it reaches other processes.
        title, unit: of the progress bar.
        workers: processes; one per core if None, this one alone if 0 or 1.
        progress: whether there is a bar.

    Raises:
        DataError: a process was killed.
    """
    bar = partial(progress_bar, description=title, total=len(items), unit=unit, disable=not progress)
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers <= 1 or len(items) < PARALLEL_FROM:
        yield from bar(map(function, items))
        return
    # Fresh processes: a fork would copy the locks of whatever threads already run here.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from bar(pool.map(function, items, chunksize=CHUNK))
        except BaseException as failure:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(failure, BrokenProcessPool):
                raise
            raise DataError(
                f"{title}: a process was killed, by a request to stop or for lack of memory; run again, "
                "in the latter case with fewer --workers. What is finished is kept"
            ) from None
