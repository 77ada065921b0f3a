"""Prefetching, so that the network does not wait for the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from fewseg.engine.setup.interrupt import Check, nothing

Item = TypeVar("Item")

_LOOK = 1.0
"""Seconds of waiting between two checks."""


def prefetch(loads: Iterable[Callable[[], Item]], ahead: int = 8, check: Check = nothing) -> Iterator[Item]:
    """Yield what ``loads`` return, in their order, while one thread works on the next ``ahead`` of them.

    Args:
        loads: functions that load the items.
        ahead: largest number of results that are loaded in advance.
        check: called regularly while waiting for a result; may raise to stop.
    """
    thread = ThreadPoolExecutor(1)
    waiting: deque[Future[Item]] = deque()
    try:
        for load in loads:
            waiting.append(thread.submit(load))
            if len(waiting) > ahead:
                yield _result(waiting.popleft(), check)
        while waiting:
            yield _result(waiting.popleft(), check)
    finally:
        thread.shutdown(wait=False, cancel_futures=True)  # a run can be stopped without waiting for the disk


def _result(future: Future[Item], check: Check) -> Item:
    while not wait([future], _LOOK).done:
        check()
    return future.result()
