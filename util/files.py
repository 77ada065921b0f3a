"""Paths that may be written, and writing files so that a crash never leaves half of one."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from fewseg.util.errors import DataError, UserError, shortened

_PART = ".part"
"""Ending of a file that is being written."""


def write_atomically(
    path: str | Path,
    write: Callable[[Path], object],
    error: type[UserError] = UserError,
    *,
    lasting: bool = True,
) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there in one step.

    Whatever goes wrong (disk full, no permission, interruption), a file that stood at ``path`` is untouched.

    Args:
        path: the file to make; missing folders are made too.
        write: receives the temporary path and writes the content.
        error: the class of the error that is raised.
        lasting: whether to wait until the content is on the disk, so that it survives the machine's crash.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PART, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        if lasting:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
        temporary = None
    except OSError as failure:
        reason = failure.strerror or failure
        raise error(f"{path}: cannot be written ({reason}); free space or choose another folder") from failure
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def is_path(text: str) -> bool:
    """Return whether a text can name a file: without control characters, no longer than systems take."""
    if not text.isprintable():
        return False
    encoded = text.encode()
    return len(encoded) < 4096 and all(len(part) < 256 for part in encoded.split(b"/"))


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary files of writes of ``names`` that were killed.

    Nobody else may be writing them: the caller holds the folder's lock.
    """
    for name in names:
        for part in folder.glob(f".{glob.escape(name)}.*{_PART}"):
            part.unlink(missing_ok=True)


def read_text(path: str | Path, what: str, remedy: str = "") -> str:
    """Return the content of a text file.

    Args:
        path: of the file; a byte order mark at its start is left out.
        what: the content, for the message: "the image list".
        remedy: what the message goes on with.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", None) or "not a text file"
        raise DataError(f"{path}: {what} cannot be read ({reason}){remedy}") from None


def write_bytes(path: str | Path, content: bytes, error: type[UserError] = UserError) -> None:
    """Write ``content`` to ``path`` atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content), error)


def write_text(
    path: str | Path, text: str, error: type[UserError] = UserError, *, lasting: bool = True
) -> None:
    """Write ``text`` to ``path`` atomically."""
    write_atomically(
        path, lambda temporary: temporary.write_text(text, encoding="utf-8"), error, lasting=lasting
    )


def require_inside(name: str, source: str | Path) -> str:
    """Return a relative path that was read from a list, a record or an archive.

    Args:
        name: the path, with slashes, below some folder.
        source: the place where it was read, for the message: ``list.txt:12``.

    Raises:
        DataError: the path is absolute, leads out of its folder by ``..``, or cannot be the name of a file.
    """
    if not is_path(name) or name in ("", "."):
        raise DataError(f"{source}: {shortened(name)} is no file's name; correct it")
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(
            f"{source}: {shortened(name)} leads out of its folder; name files by their path below it"
        )
    return name


def is_inside(folder: Path, path: Path) -> bool:
    """Return whether ``path``, with symbolic links followed, lies below ``folder``."""
    return path.resolve().is_relative_to(folder.resolve())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
