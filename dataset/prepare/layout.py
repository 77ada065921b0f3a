"""What a prepared data root holds beside the images: lists, class names, and a record of what was written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fewseg.dataset.classes.fold import LIST_FOLDER
from fewseg.dataset.classes.own_names import CLASSES_FILE, to_lines
from fewseg.util.errors import DataError
from fewseg.util.files import write_text
from fewseg.util.inside import require_inside
from fewseg.util.parallel import parallel_map

RECORD = ".fewseg/prepared.json"
"""Data set and counts; the checksums of masks stand beside it, one ``crc32 path`` per line."""

CHECKSUMS = ".fewseg/masks.crc32"


def write_list(path: Path, lines: Iterable[str]) -> None:
    """Write a list, one image per line.

    Raises:
        DataError: there is no image, or the file cannot be written.
    """
    lines = list(lines)
    if not lines:
        raise DataError(f"{path}: the list would be empty; check the source")
    write_text(path, "\n".join(lines) + "\n", DataError)


def list_path(root: Path, part: str) -> Path:
    """Return where a part's list lies in a data root."""
    return root / LIST_FOLDER / f"{part}.txt"


def write_names(root: Path, names: Sequence[str], *, with_ids: bool = True) -> None:
    """Write ``classes.txt``, every name behind its id where masks hold ids."""
    lines = to_lines(names) if with_ids else names
    write_text(root / CLASSES_FILE, "\n".join(lines) + "\n", DataError)


def write_record(
    root: Path,
    data_set: str,
    lists: Mapping[str, Path],
    masks: Sequence[str],
    *,
    workers: int | None = None,
    progress: bool = True,
    **facts: Any,
) -> None:
    """Note what was prepared, so that ``--verify`` can tell later changes.

    Args:
        lists: part -> list file.
        masks: paths of all masks below the root.
        facts: anything else that is worth knowing, as JSON can hold it.
    """
    sums = checksums(root, masks, workers, progress)
    text = "".join(f"{value} {name}\n" for name, value in sums.items())
    write_text(root / CHECKSUMS, text, DataError)
    record = {
        "data_set": data_set,
        "lists": {part: str(path.resolve()) for part, path in lists.items()},
        "list_crc32": {part: _crc32(path) for part, path in lists.items()},
        "masks": len(masks),
        **facts,
    }
    write_text(root / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n", DataError)


def read_record(root: Path, data_set: str) -> dict[str, Any] | None:
    """Return what ``write_record`` noted, or None where nothing usable is there.

    Raises:
        DataError: the root holds another data set.
    """
    try:
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict):
        return None
    if record.get("data_set") != data_set:
        raise DataError(f"{root}: holds {record.get('data_set')}, not {data_set}; give another --root")
    return record


def changed_masks(
    root: Path, workers: int | None = None, progress: bool = True
) -> tuple[list[str], list[str]]:
    """Return the masks that are missing and those that differ from what was written."""
    try:
        rows = (root / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return [], []
    parted = (row.partition(" ") for row in rows)
    noted = {require_inside(name, root / CHECKSUMS): value for value, _, name in parted}
    missing = [name for name in noted if not (root / name).is_file()]
    present = [name for name in noted if (root / name).is_file()]
    found = checksums(root, present, workers, progress)
    return missing, [name for name in present if found[name] != noted[name]]


def changed_lists(record: Mapping[str, Any]) -> list[str]:
    """Return the lists that are missing or differ from what was written."""
    paths = {part: Path(path) for part, path in record.get("lists", {}).items()}
    noted = record.get("list_crc32", {})
    return [
        str(path) for part, path in paths.items() if not path.is_file() or _crc32(path) != noted.get(part)
    ]


def checksums(root: Path, names: Sequence[str], workers: int | None, progress: bool) -> dict[str, str]:
    """Return the CRC-32 of files below the root, in hexadecimal."""
    found = parallel_map(
        partial(_crc32_below, root), names, title="checksums", unit="file", workers=workers, progress=progress
    )
    return dict(zip(names, found, strict=True))


def _crc32_below(root: Path, name: str) -> str:
    return _crc32(root / name)


def _crc32(path: Path) -> str:
    return f"{zlib.crc32(path.read_bytes()):08x}"
