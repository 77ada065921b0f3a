"""What a run says: to the terminal, below any progress bar, and to a plain log file."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from fewseg.util.errors import UserError

ROOT = "fewseg"


class _TerminalHandler(logging.Handler):
    """Prints through tqdm, so that progress bars stay whole."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr if record.levelno >= logging.WARNING else sys.stdout)


def is_main() -> bool:
    """Whether this process speaks. One that has not loaded torch is alone, and need not load it to know."""
    if "torch" not in sys.modules:
        return True
    from fewseg.util import distributed

    return distributed.is_main()


def start_log(folder: str | Path | None = None, name: str = "log.txt") -> logging.Logger:
    """Set up the log and return it. Only the main process speaks, except for warnings.

    Args:
        folder: where the log file goes, appended to if it exists; unset: terminal only.
        name: of the file.

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
    """A log file whose end, on a full disk, is one line on the terminal and not a traceback per line."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell the first error of writing, and leave what is no such error to Python."""
        failure = sys.exc_info()[1]
        if not isinstance(failure, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            print(f"{self.baseFilename}: the log ends here ({failure.strerror})", file=sys.stderr)

    def close(self) -> None:
        """Close the file; that it could not be written has been told."""
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
    """Close the log file and take the handlers away."""
    log = logging.getLogger(ROOT)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.propagate = True


def log_warnings() -> None:
    """Let the warnings of this project come as plain lines of the log, others as Python shows them."""
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
