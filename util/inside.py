"""Names that a list, a record or an archive gives to files never lead out of their folder."""

from __future__ import annotations

from pathlib import Path

from fewseg.util.errors import DataError, shortened
from fewseg.util.files import is_path


def require_inside(name: str, source: str | Path) -> str:
    """Return a name that was read from a file, and that a path below some folder is made of.

    Args:
        name: a relative path with slashes.
        source: where it was read, for the message: ``list.txt:12``.

    Raises:
        DataError: it is absolute, or climbs by ``..``, or can be no file's name: too long, with control
            characters.
    """
    if not is_path(name) or name in ("", "."):
        raise DataError(f"{source}: {shortened(name)} is no file's name; correct it")
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(
            f"{source}: {shortened(name)} leads out of its folder; name files by their path below it"
        )
    return name


def is_inside(folder: Path, path: Path) -> bool:
    """Whether ``path`` lies below ``folder``, symbolic links followed: asked before writing and deleting."""
    return path.resolve().is_relative_to(folder.resolve())
