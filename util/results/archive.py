"""Arrays in a file: a NumPy archive without pickled objects, whose checksums show any damage."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from fewseg.util.errors import ResultError
from fewseg.util.files import write_atomically


def write_archive(path: str | Path, arrays: Mapping[str, Any], *, compressed: bool = True) -> None:
    """Write arrays by name, atomically.

    Raises:
        ResultError: the file cannot be written.
    """
    save = np.savez_compressed if compressed else np.savez
    write_atomically(path, lambda temporary: _save(temporary, save, arrays), ResultError)


def read_archive(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name.

    Raises:
        ResultError: missing, damaged, or no archive.
    """
    try:
        # NumPy leaves a damaged file open that it opened itself.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError, TypeError, EOFError, BadZipFile, zlib.error) as failure:
        reason = getattr(failure, "strerror", None) or "damaged, or no counts of FewSeg"
        raise ResultError(f"{path}: cannot be read ({reason}); test again") from failure


def _save(path: Path, save: Callable[..., None], arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        save(file, **arrays)
