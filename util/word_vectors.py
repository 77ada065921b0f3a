"""Word vectors of class names: read from a table, or derived from the names where a data set has none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewseg.util.errors import DataError, shortened
from fewseg.util.files import is_path

_HASHED_WIDTH = 300
HASHED = "hashed"
_BACKGROUND = "background"


def load_word_vectors(source: str | Path | Sequence[str], class_names: Sequence[str]) -> Tensor:
    """Return one word vector per class, float32 [1 + classes, width], row 0 the background's.

    Args:
        source: ``hashed``, the path of a table [1 + classes, width] as ``tools/word_vectors.py`` makes it, or
            several of these, whose vectors are concatenated.
        class_names: in the order of their ids, with or without a leading ``background``.

    Raises:
        DataError: a table is missing, unreadable, or not one of this data set.
    """
    names = with_background(class_names)
    tables = [
        hashed_vectors(names) if str(one) == HASHED else _read_table(Path(one), len(names))
        for one in ([source] if isinstance(source, str | Path) else source)
    ]
    return torch.from_numpy(np.concatenate(tables, axis=1))


def with_background(class_names: Sequence[str]) -> list[str]:
    """Return the names with ``background`` in front."""
    names = list(class_names)
    return names if names[:1] == [_BACKGROUND] else [_BACKGROUND, *names]


def hashed_vectors(names: Sequence[str]) -> np.ndarray:
    """Return a unit vector of 300 numbers per name, float32 [names, 300], the same on every machine.

    Different names have nearly orthogonal vectors, which distinguish classes but have no meaning.
    """
    digests = [hashlib.shake_256(name.encode()).digest(4 * _HASHED_WIDTH) for name in names]
    integers = np.frombuffer(b"".join(digests), "<u4").reshape(len(names), _HASHED_WIDTH)
    return unit_rows(integers / 2.0**31 - 1)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale every row to length one, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _read_table(path: Path, rows: int) -> np.ndarray:
    if not is_path(str(path)):
        raise DataError(f"embeddings {shortened(str(path))}: is no path of a table; correct it")
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such table of word vectors; make one with tools/word_vectors.py, "
            f"or set embeddings: {HASHED}"
        )
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as failure:
        raise DataError(
            f"{path}: is no .npy table of numbers; make one with tools/word_vectors.py"
        ) from failure
    shape = list(table.shape) if isinstance(table, np.ndarray) else "an archive of several arrays"
    if len(shape) != 2 or shape[0] != rows or not shape[1]:
        raise DataError(
            f"{path}: a table of word vectors must have {rows} rows here, the background and {rows - 1} "
            f"classes, each a vector; got {shape}"
        )
    if table.dtype.kind != "f" or not np.isfinite(table).all():
        raise DataError(
            f"{path}: the word vectors must be finite floating-point numbers; make the table anew"
        )
    return table.astype(np.float32)
