"""Check a prepared data root: lists, counts and checksums, then every image and mask (by the data doctor)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewseg.dataset.classes.class_folders import CLASS_FOLDER_DATA_SETS, ClassFolders
from fewseg.dataset.classes.folds_file import FOLDS_FILE, read_folds
from fewseg.dataset.classes.own_names import CLASSES_FILE, read_class_names
from fewseg.dataset.lists.image_lists import IMAGE_FOLDER, ImageList, read_image_list
from fewseg.dataset.prepare import coco, folder, fss1000, pascal
from fewseg.dataset.prepare.doctor import Finding, examine
from fewseg.dataset.prepare.layout import changed_lists, changed_masks, list_path, read_record
from fewseg.dataset.prepare.shipped_lists import PASCAL_COUNTS, fold_counts
from fewseg.util.errors import DataError

PARTS = ("train", "val", "test")
_AGAIN = "prepare the data set again"

COUNTS: dict[str, dict[str, int]] = {
    "pascal": {pascal.FILES[part].removesuffix(".txt"): count for part, count in pascal.COUNTS.items()},
    "coco": {part.removesuffix("2014"): listed for part, (_, listed) in coco.COUNTS.items()},
    "fss1000": {part: 10 * classes for part, classes in fss1000.COUNTS.items()},
}
"""Number of images in each official list."""


def verify(data_set: str, root: Path, *, subset: bool = False, workers: int | None = None) -> list[Finding]:
    """Return all problems of a prepared data root.

    Raises:
        DataError: there is no data root, or it has no lists.
    """
    record = read_record(root, data_set)
    lists = _lists(root, record)
    names, findings = _names(data_set, root)
    findings += _repeated(lists.values())
    parts: dict[str, ImageList] = {}
    for part, path in lists.items():
        try:
            images = read_image_list(root, path)
            by_folder = data_set in CLASS_FOLDER_DATA_SETS and names
            parts[part] = ClassFolders.read(root).with_class_ids(images) if by_folder else images
        except DataError as failure:
            findings.append(Finding("list that cannot be used", (str(failure),), _AGAIN))
    if record is not None:
        missing, changed = changed_masks(root, workers)
        remedy = "delete it and prepare the data set again"
        findings += [
            Finding("list changed since it was written", tuple(changed_lists(record)), _AGAIN),
            Finding("mask missing", tuple(missing), f"{_AGAIN}, which makes it"),
            Finding("mask changed since it was written", tuple(changed), remedy),
        ]
    if not subset and data_set in COUNTS:
        findings.append(_counts(COUNTS[data_set], parts))
    if not subset and data_set == "pascal":
        findings.append(_folds(parts))
    if data_set == "folder":
        findings.append(_unlisted(root, parts.values()))
    complete = data_set != "folder" and not subset
    findings += examine(_disjoint(parts), names, complete=complete, workers=workers)
    return [finding for finding in findings if finding.where]


def _repeated(lists: Iterable[Path]) -> Iterator[Finding]:
    """Yield the repeated lines of every list, which occur where two pictures have the same name."""
    for path in lists:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        counts = Counter(line for line in lines if line.strip())
        repeated = tuple(f"{path}: {line}" for line, count in counts.items() if count > 1)
        remedy = "if two pictures have one name, one is lost: rename it and prepare again; or delete the line"
        yield Finding("line that a list repeats", repeated, remedy)


def _unlisted(root: Path, lists: Iterable[ImageList]) -> Finding:
    """Return the images and masks that no list names."""
    listed = {path for images in lists for path in (*images.images, *images.masks)}
    paths = (path for name in (IMAGE_FOLDER, folder.MASKS) for path in (root / name).rglob("*"))
    names = (path.relative_to(root).as_posix() for path in paths if path.is_file())
    unlisted = tuple(sorted(path for path in names if path not in listed))
    remedy = "list it, or remove it if it is of an earlier preparation"
    return Finding("file that no list names", unlisted, remedy, serious=False)


def _lists(root: Path, record: Mapping[str, Any] | None) -> dict[str, Path]:
    if not root.is_dir():
        raise DataError(f"{root}: no data root; prepare the data set first, or give --root")
    if record is not None:
        return {part: Path(path) for part, path in record["lists"].items()}
    found = {part: list_path(root, part) for part in PARTS if list_path(root, part).is_file()}
    if not found:
        raise DataError(f"{root}: has no lists in ImageSets/Segmentation; prepare the data set first")
    return found


def _names(data_set: str, root: Path) -> tuple[Sequence[str] | None, list[Finding]]:
    """Return the class names, None where they cannot be read, and what is wrong with them and the folds."""
    names, remedy = None, "correct the file"
    try:
        of_folders = data_set in CLASS_FOLDER_DATA_SETS
        names = ClassFolders.read(root).names if of_folders else read_class_names(root / CLASSES_FILE)
        if (root / FOLDS_FILE).is_file():
            read_folds(root / FOLDS_FILE, names)
    except DataError as failure:
        return names, [Finding("class names" if names is None else "folds", (str(failure),), remedy)]
    return names, []


def _counts(wanted: Mapping[str, int], parts: Mapping[str, ImageList]) -> Finding:
    wrong = tuple(
        f"{part}: {len(parts[part]) if part in parts else 'no list'} instead of {count}"
        for part, count in wanted.items()
        if part not in parts or len(parts[part]) != count
    )
    remedy = "prepare it again, or verify with --subset"
    return Finding("list without the official number of images", wrong, remedy)


def _folds(parts: Mapping[str, ImageList]) -> Finding:
    """Compare the numbers of images that the folds list with those of the official masks."""
    expected = json.loads(PASCAL_COUNTS.read_text(encoding="utf-8"))
    try:
        train, val = parts[Path(pascal.FILES["merged"]).stem], parts["val"]
        counted = fold_counts(train, train.index(), val, val.index(), "pascal")
    except (KeyError, DataError):
        counted = expected  # other findings report the wrong list or mask
    wrong = tuple(
        f"fold {fold} {kind}: {counted[fold][kind]} instead of {count}"
        for fold, counts in expected.items()
        for kind, count in counts.items()
        if counted[fold][kind] != count
    )
    remedy = "some masks are others: make them again"
    return Finding("fold without the published number of images", wrong, remedy)


def _disjoint(parts: Mapping[str, ImageList]) -> dict[str, ImageList]:
    """Leave out lists that another list contains, as pascal's trainaug contains its other train lists."""
    whole = {part: set(images.images) for part, images in parts.items()}
    kept: dict[str, ImageList] = {}
    for part, images in parts.items():
        rivals = [other for other in parts if other != part and whole[part] <= whole[other]]
        if not any(whole[part] < whole[other] or other in kept for other in rivals):
            kept[part] = images
    return kept
