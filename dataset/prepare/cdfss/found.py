"""Searching the user's folders for the files of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fewseg.dataset.prepare.class_pairs import Pairs
from fewseg.util.errors import DataError
from fewseg.util.log import get_log

DEPTH = 4
"""Number of folder levels below the source within which a folder is searched."""


def folders(sources: Sequence[Path]) -> Iterator[Path]:
    """Yield the sources and the folders in them, level by level."""
    level = list(sources)
    for _ in range(DEPTH + 1):
        yield from level
        level = sorted(child for folder in level for child in folder.iterdir() if child.is_dir())


def folders_named(sources: Sequence[Path], *names: str) -> list[Path]:
    """Return the folders of one of these names, in lower case, at most ``DEPTH`` levels below a source.

    Of a folder in a folder of the same name, as some programs unpack archives, the inner one counts.
    """
    found = [folder for folder in folders(sources) if folder.name.lower() in names]
    return [folder for folder in found if not any(folder in other.parents for other in found)]


def files_below(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a pattern at any depth, sorted, without hidden ones (which macOS archives)."""
    return sorted(path for path in folder.rglob(pattern) if path.is_file() and path.name[0] != ".")


def complete(pairs: Pairs, data_set: str, *, subset: bool) -> Pairs:
    """Return the pairs that have a mask.

    Raises:
        DataError: some have none and ``subset`` does not allow it, or none is left.
    """
    without = [image for found in pairs.values() for image, mask in found if not mask.is_file()]
    kept = {name: [pair for pair in found if pair[1].is_file()] for name, found in pairs.items()}
    empty = next((name for name, found in kept.items() if not found), None)
    if without and (empty is not None or not subset):
        raise DataError(
            f"{without[0]}: has no mask (one of {len(without)}); fetch the masks again, or accept a part of "
            f"{data_set} by --subset"
        )
    if without:
        message = "%s: %d images have no mask and are left out, first %s"
        get_log("prepare").warning(message, data_set, len(without), without[0])
    return kept
