"""``live.json`` in the folder of a running script: what it is doing, for those who watch it.

The file is information only. Nothing depends on it, a script goes on where it cannot be written, and it is
removed when the script ends in any way but a kill; after a kill its age says so.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from fewseg.util.distributed import is_main
from fewseg.util.errors import UserError
from fewseg.util.files import write_text
from fewseg.util.log import get_log

LIVE = "live.json"
"""The file in the folder of a running script."""

_EVERY = 5.0
"""The least seconds between two writes."""


class Live:
    """A context in which a script says what it is doing; the file is removed at its end.

    Only the main process writes. A folder that does not exist is not made.

    Args:
        folder: the folder of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / LIVE
        self._next = 0.0
        self._failed = False

    def __enter__(self) -> Live:
        self._remove()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def show(self, **facts: Any) -> None:
        """Write ``facts`` at most every five seconds, the first at once, with time, host and process.

        Args:
            facts: plain values that JSON can hold. ``work`` says what the script does, such as "training",
                and ``phase`` which part of it, such as "validation".
        """
        now = time.monotonic()
        if now < self._next or not is_main():
            return
        self._next = now + _EVERY
        said = {**facts, "updated": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        try:
            if self._path.parent.is_dir():
                write_text(self._path, json.dumps(said) + "\n", lasting=False)
        except (UserError, OSError) as failure:
            if not self._failed:
                get_log("live").debug("%s; the run goes on", failure)
            self._failed = True

    def _remove(self) -> None:
        if is_main():
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def read_live(folder: str | Path) -> dict[str, Any] | None:
    """Return what the script in a folder last said about itself, and the ``age`` of that in seconds.

    Returns:
        The facts; None where there is no file, or none that can be read.
    """
    path = Path(folder) / LIVE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        age = max(0.0, time.time() - path.stat().st_mtime)
    except (OSError, ValueError, RecursionError):
        return None
    return {**facts, "age": age} if isinstance(facts, dict) else None
