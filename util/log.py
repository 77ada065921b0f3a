"""The log of a run: on the terminal, above any progress bar, and in a plain file."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from fewseg.util.distributed import is_main
from fewseg.util.errors import UserError

ROOT = "fewseg"


class _TerminalHandler(logging.Handler):
    """Prints through tqdm, so that lines do not break into a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr if record.levelno >= logging.WARNING else sys.stdout)


def start_log(folder: str | Path | None = None, name: str = "log.txt") -> logging.Logger:
    """Set up the log and return it. Processes other than the main one log warnings only.

    Args:
        folder: where the log file is written, at the end of one that exists; None: terminal only.
        name: name of the file.

    Raises:
        UserError: the file cannot be written.
    """
    log = logging.getLogger(ROOT)
    stop_log()
    log.propagate = False
    log.setLevel(logging.INFO if is_main() else logging.WARNING)
    terminal = _TerminalHandler()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)
    if folder is not None and is_main():
        log.addHandler(_file_handler(Path(folder) / name))
    elif is_main():
        log.addHandler(MemoryHandler(capacity=0, flushLevel=logging.CRITICAL))
    return log


@contextmanager
def log_to_file(path: str | Path) -> Iterator[None]:
    """Write the log to a file too while the body runs, the lines since ``start_log`` included.

    Raises:
        UserError: the file cannot be written.
    """
    log = logging.getLogger(ROOT)
    file = _file_handler(Path(path))
    for kept in [handler for handler in log.handlers if isinstance(handler, MemoryHandler)]:
        kept.setTarget(file)
        kept.close()  # hands over what it has
        log.removeHandler(kept)
    log.addHandler(file)
    try:
        yield
    finally:
        log.removeHandler(file)
        file.close()


class _LogFile(logging.FileHandler):
    """A log file that reports a full disk by one line on the terminal instead of a traceback per line."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Report the first error of writing, and leave other errors to Python."""
        failure = sys.exc_info()[1]
        if not isinstance(failure, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            print(f"{self.baseFilename}: the log ends here ({failure.strerror})", file=sys.stderr)

    def close(self) -> None:
        """Close the file; a failure to write it has been reported already."""
        with suppress(OSError):
            super().close()


def _file_handler(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, encoding="utf-8")
    except OSError as failure:
        raise UserError(f"{path}: cannot be written ({failure.strerror}); choose another folder") from failure
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    return file


def stop_log() -> None:
    """Close the log file and remove the handlers."""
    log = logging.getLogger(ROOT)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.propagate = True


def log_warnings() -> None:
    """Write this project's warnings as plain lines of the log, and show others as Python does."""
    as_usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is UserWarning:
            get_log().warning("%s", message)
        else:
            as_usual(message, category, *where, **more)

    warnings.showwarning = show


def get_log(package: str = "") -> logging.Logger:
    """Return the log, or the part of it named after a package."""
    return logging.getLogger(f"{ROOT}.{package}" if package else ROOT)
