"""The other files of a prepared data root: lists, class names, and a record of what was written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewseg.dataset.classes.own_names import CLASSES_FILE, to_lines
from fewseg.dataset.lists.image_lists import LIST_FOLDER
from fewseg.util.errors import DataError
from fewseg.util.files import require_inside, write_text
from fewseg.util.parallel import parallel_map

RECORD = ".fewseg/prepared.json"
"""Data set, lists and their checksums."""

CHECKSUMS = ".fewseg/masks.crc32"
"""The checksums of the masks."""


def write_list(path: Path, lines: Iterable[str]) -> None:
    """Write a list, one image per line.

    Raises:
        DataError: there are no lines, or the file cannot be written.
    """
    text = "".join(f"{line}\n" for line in lines)
    if not text:
        raise DataError(f"{path}: the list would be empty; check the source")
    write_text(path, text, DataError)


def list_path(root: Path, part: str) -> Path:
    """Return the path of a part's list in a data root."""
    return root / LIST_FOLDER / f"{part}.txt"


def write_names(root: Path, names: Sequence[str], *, with_ids: bool = True) -> None:
    """Write ``classes.txt``, every name behind its id where masks hold ids."""
    write_list(root / CLASSES_FILE, to_lines(names) if with_ids else names)


def write_record(
    root: Path, data_set: str, lists: Mapping[str, Path], masks: Sequence[str], workers: int | None = None
) -> None:
    """Record what was prepared, so that ``--verify`` can detect later changes.

    Args:
        lists: part -> list file.
        masks: paths of all masks below the root.
    """
    write_checksums(root / CHECKSUMS, checksums(root, masks, workers))
    record = {
        "data_set": data_set,
        "lists": {part: str(path.resolve()) for part, path in lists.items()},
        "list_crc32": {part: _crc32(path) for part, path in lists.items()},
        "masks": len(masks),
    }
    write_text(root / RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n", DataError)


def read_record(root: Path, data_set: str) -> dict[str, Any] | None:
    """Return the record that ``write_record`` wrote, or None where there is no usable one.

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


def changed_masks(root: Path, workers: int | None = None) -> tuple[list[str], list[str]]:
    """Return the masks that are missing and those that differ from what was written."""
    written = read_checksums(root / CHECKSUMS)
    missing = [n for n in written if not (root / require_inside(n, root / CHECKSUMS)).is_file()]
    present = checksums(root, sorted(written.keys() - missing), workers)
    return missing, [name for name, value in present.items() if value != written[name]]


def changed_lists(record: Mapping[str, Any]) -> list[str]:
    """Return the lists that are missing or differ from what was written."""
    paths = {part: Path(path) for part, path in record.get("lists", {}).items()}
    noted = record.get("list_crc32", {})
    return [
        str(path) for part, path in paths.items() if not path.is_file() or _crc32(path) != noted.get(part)
    ]


def checksums(root: Path, names: Sequence[str], workers: int | None = None) -> dict[str, str]:
    """Return the CRC-32 of files below the root, in hexadecimal."""
    paths = [root / name for name in names]
    values = parallel_map(_crc32, paths, title="checksums", unit="file", workers=workers)
    return dict(zip(names, values, strict=True))


def _crc32(path: Path) -> str:
    return f"{zlib.crc32(path.read_bytes()):08x}"


def write_checksums(path: Path, sums: Mapping[str, str]) -> None:
    """Write checksums by name, one ``crc32 name`` per line."""
    write_text(path, "".join(f"{value} {name}\n" for name, value in sums.items()), DataError)


def read_checksums(path: Path) -> dict[str, str]:
    """Return the checksums that ``write_checksums`` wrote, by name; empty where the file cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {name: value for value, space, name in (line.partition(" ") for line in lines) if space}
