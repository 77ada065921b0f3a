"""The number of pixels of every label in each mask, from which lists and folds are derived.

The masks are read once, in parallel, and the result is kept in a file ``.fewseg/areas-<key>.npz`` in the data
root (or, where that cannot be written, in the user's cache folder). The file is a plain NumPy archive:

    version      int64          layout of this file
    fingerprint  uint8 [32]     SHA-256 of every mask's path, size in bytes and modification time
    names        uint8 [bytes]  paths of the masks below the root, UTF-8, one per line
    size         int32 [n,2]    height and width
    start        int64 [n+1]    labels of mask i are at start[i]:start[i+1] in the two arrays below
    label        uint8 [m]      labels that occur in the mask, ascending; 255 is void
    area         int32 [m]      their pixel counts
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fewseg.dataset.reading.mask import label_counts, read_mask
from fewseg.util.errors import DataError
from fewseg.util.files import write_atomically
from fewseg.util.parallel import parallel_map

VERSION = 1


@dataclass(frozen=True)
class AreaIndex:
    """Label areas of n masks.

    Attributes:
        names: paths of the masks below the data root.
        size, start, label, area: the arrays that the docstring of the module describes.
    """

    names: tuple[str, ...]
    size: np.ndarray
    start: np.ndarray
    label: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def at_least(self, labels: Sequence[int], pixels: int = 1) -> np.ndarray:
        """Return whether each mask holds at least ``pixels`` pixels of each label, bool [n, labels]."""
        held = np.zeros((len(self), len(labels)), bool)
        column = np.full(1 + max(255, *labels) if len(labels) else 256, -1)
        column[list(labels)] = np.arange(len(labels))
        known = np.minimum(self.label, len(column) - 1)  # ids of other classes may lie beyond the table
        entries = np.flatnonzero((column[known] >= 0) & (known == self.label) & (self.area >= pixels))
        rows = np.searchsorted(self.start, entries, side="right") - 1
        held[rows, column[self.label[entries]]] = True
        return held

    def with_class_ids(self, class_ids: Sequence[int]) -> AreaIndex:
        """Return the areas of masks of 0 and 1, with label 1 replaced by the mask's class id (uint16)."""
        ids = np.repeat(np.asarray(class_ids, np.uint16), np.diff(self.start))
        return replace(self, label=np.where(self.label == 1, ids, self.label.astype(np.uint16)))

    @classmethod
    def from_rows(
        cls, names: tuple[str, ...], rows: Sequence[tuple[int, int, np.ndarray, np.ndarray]]
    ) -> AreaIndex:
        """Join the rows of single masks: height, width, labels in ascending order and their areas."""
        size = np.array([row[:2] for row in rows], np.int32).reshape(-1, 2)
        start = np.cumsum([0, *(len(row[2]) for row in rows)], dtype=np.int64)
        label = np.concatenate([row[2] for row in rows]) if rows else np.empty(0, np.uint8)
        area = np.concatenate([row[3] for row in rows]) if rows else np.empty(0, np.int32)
        return cls(names, size, start, label, area)


def index_masks(
    root: str | Path, names: Iterable[str], workers: int | None = None, progress: bool = True
) -> AreaIndex:
    """Return the label areas of the masks ``names`` below ``root``, from the cache if no mask has changed.

    Args:
        root: data root.
        names: paths of the masks below it, in the order of the list.
        workers: number of processes that read; one per core if None.
        progress: whether a progress bar is shown.

    Raises:
        DataError: a mask is missing or unreadable.
    """
    root, names = Path(root), tuple(names)
    stamp = _fingerprint(root, names)
    key = hashlib.sha256("\n".join((str(root.resolve()), *names)).encode()).hexdigest()[:12]
    files = [folder / f"areas-{key}.npz" for folder in (root / ".fewseg", _user_cache())]
    for file in files:
        index = _load(file, stamp)
        if index is not None:
            return index
    paths = [root / name for name in names]
    rows = parallel_map(
        _count_labels, paths, title="reading masks", unit="mask", workers=workers, progress=progress
    )
    index = AreaIndex.from_rows(names, list(rows))
    if not root.stat().st_mode & 0o222:
        files = files[1:]  # a root marked read-only is not written to, even where the system would allow it
    for file in files:
        try:
            write_atomically(file, lambda path: _save(path, index, stamp), DataError)
            break
        except DataError:
            continue  # without a cache, the next run reads the masks again
    return index


def _fingerprint(root: Path, names: Sequence[str]) -> bytes:
    digest, folder = hashlib.sha256(), f"{root}{os.sep}"  # Path objects would double the time
    for name in names:
        try:
            status = os.stat(folder + name)
        except OSError:
            raise DataError(
                f"{root / name}: the mask is missing; check the image list and the data root"
            ) from None
        digest.update(f"{name}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    return digest.digest()


def _count_labels(path: Path) -> tuple[int, int, np.ndarray, np.ndarray]:
    mask = read_mask(path)
    counts = label_counts(mask)
    labels = np.flatnonzero(counts)
    return *mask.shape, labels.astype(np.uint8), counts[labels].astype(np.int32)


def _save(path: Path, index: AreaIndex, stamp: bytes) -> None:
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            version=np.int64(VERSION),
            fingerprint=np.frombuffer(stamp, np.uint8),
            names=np.frombuffer("\n".join(index.names).encode(), np.uint8),
            size=index.size,
            start=index.start,
            label=index.label,
            area=index.area,
        )


def _load(file: Path, stamp: bytes) -> AreaIndex | None:
    """Return the cached index, or None if there is none, it is stale or it cannot be read."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            if int(stored["version"]) != VERSION or stored["fingerprint"].tobytes() != stamp:
                return None
            names = tuple(stored["names"].tobytes().decode().split("\n"))
            return AreaIndex(names, *(stored[key] for key in ("size", "start", "label", "area")))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None  # a damaged archive is written again


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewseg"
