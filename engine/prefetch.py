"""Reading ahead, so that the network need not wait for the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(loads: Iterable[Callable[[], Item]], ahead: int = 8) -> Iterator[Item]:
    """Yield what ``loads`` return, in their order, while one thread works on the next ``ahead`` of them."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Item]] = deque()
        try:
            for load in loads:
                waiting.append(thread.submit(load))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
