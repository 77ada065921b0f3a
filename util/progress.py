"""The progress of a loop: a bar on a terminal, and a line now and then where output goes to a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

from fewseg.util.distributed import is_main

Item = TypeVar("Item")

LINE_SECONDS = 30.0
"""The least seconds between two lines; a loop that ends sooner prints none."""


def progress(items: Iterable[Item] | None, description: str, **options: Any) -> tqdm:
    """Return tqdm's progress bar, which only the main process shows.

    Where stderr is no terminal, a line is printed after every tenth of the loop, at most every half minute.

    Args:
        items: the items of the loop; None where the loop calls ``update`` itself.
        description: the text in front of the bar.
        options: further arguments of tqdm.
    """
    kind = tqdm if sys.stderr.isatty() else _Lines
    disable = options.pop("disable", False) or not is_main()
    options = {"leave": False, "dynamic_ncols": True, **options, "disable": disable}
    return kind(items, desc=description, **options)


class _Lines(tqdm):
    """Prints at most ten plain lines, without control characters, and at most one in ``LINE_SECONDS``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._next_count, self._next_time = 0.0, time.monotonic() + LINE_SECONDS
        plain = {"ncols": 0, "dynamic_ncols": False, "leave": False, "mininterval": LINE_SECONDS / 30}
        super().__init__(*arguments, **{**options, **plain})
        self._next_count = self._next_tenth()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print a line if it is time for one."""
        now = time.monotonic()
        if msg is None and now >= self._next_time and self.n >= self._next_count:
            print(self, file=self.fp, flush=True)
            self._next_count, self._next_time = self._next_tenth(), now + LINE_SECONDS
        return False

    def clear(self, *_: Any, **__: Any) -> None:
        """Do nothing: printed lines stay."""

    def _next_tenth(self) -> float:
        return self.n + (self.total or 0) / 10
