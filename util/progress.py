"""How far a loop has come: a bar on a terminal, now and then a line in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from fewseg.util.distributed import is_main

Item = TypeVar("Item")

LINE_SECONDS = 30.0
"""Seconds of a loop without a line; what is over sooner leaves none."""


def progress(items: Iterable[Item] | None, description: str, **options: Any) -> tqdm:
    """Show in the main process how far a loop has come.

    Where stderr is no terminal, a line tells of every tenth that took at least half a minute.

    Args:
        items: to loop over; None where the loop calls ``update`` itself.
        description: of the loop.
        options: of tqdm.
    """
    kind = tqdm if sys.stderr.isatty() else _Lines
    disable = options.pop("disable", False) or not is_main()
    options = {"leave": False, "dynamic_ncols": True, **options, "disable": disable}
    return kind(items, desc=description, **options)


class _Lines(tqdm):
    """Writes plain lines: no control characters, no more than ten and at most one in ``LINE_SECONDS``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._next_count, self._next_time = 0.0, time.monotonic() + LINE_SECONDS
        plain = {"ncols": 0, "dynamic_ncols": False, "leave": False, "mininterval": LINE_SECONDS / 30}
        super().__init__(*arguments, **{**options, **plain})
        self._next_count = self._later()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line if it is time for one."""
        now = time.monotonic()
        if msg is None and now >= self._next_time and self.n >= self._next_count:
            print(self, file=self.fp, flush=True)
            self._next_count, self._next_time = self._later(), now + LINE_SECONDS
        return False

    def clear(self, *_: Any, **__: Any) -> None:
        """Leave alone what is written."""

    def _later(self) -> float:
        return self.n + (self.total or 0) / 10
