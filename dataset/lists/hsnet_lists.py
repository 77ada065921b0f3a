"""HSNet's fixed lists, read in the formats that they are distributed in.

These are text with ``image__class`` per line (PASCAL-5i, classes from 1), text with a class name per line
(FSS-1000: every image of the class), and JSON with the images of every class (COCO-20i, classes from 0).
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.lists.image_lists import EpisodeLists
from fewseg.util.errors import DataError
from fewseg.util.files import read_text

Pairs = list[tuple[int, int]]
"""Position of an image and the class that it is listed for, in the order of the file."""


def read_hsnet_list(path: str | Path, fold: Fold) -> tuple[EpisodeLists, str]:
    """Read a list for the images and classes of a fold.

    Returns:
        The lists that episodes are drawn from, and the query order that HSNet uses with them.

    Raises:
        DataError: the list is missing, or it has other images or classes than the fold.
    """
    path = Path(path)
    text = read_text(path, "the list")
    if text.lstrip().startswith("{"):
        return _lists(_coco_pairs(text, fold, path), fold, path), "class"
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: the list is empty")
    if "__" in lines[0][1]:
        return _lists(_pascal_pairs(lines, fold, path), fold, path), "pairs"
    return _lists(_class_pairs(lines, fold, path), fold, path), "pairs"


def _pascal_pairs(lines: list[tuple[int, str]], fold: Fold, path: Path) -> Pairs:
    positions, pairs = _positions(fold), []
    for number, line in lines:
        name, _, class_id = line.rpartition("__")
        if not name or not class_id.isdigit():
            raise DataError(f"{path}:{number}: expected image__class, found {line!r}")
        if name not in positions:
            raise DataError(
                f"{path}:{number}: {name} is not in {fold.val_list}; the list is of another data set"
            )
        pairs.append((positions[name], int(class_id)))
    return pairs


def _class_pairs(lines: list[tuple[int, str]], fold: Fold, path: Path) -> Pairs:
    ids = {name: class_id for class_id, name in enumerate(fold.classes.names) if class_id}
    of_class = fold.val_areas.at_least(fold.classes.novel)
    pairs: Pairs = []
    for number, name in lines:
        if ids.get(name) not in fold.classes.novel:
            raise DataError(f"{path}:{number}: {name} is no class that fold {fold.number} tests")
        column = fold.classes.novel.index(ids[name])
        pairs += [(int(position), ids[name]) for position in of_class[:, column].nonzero()[0]]
    return pairs


def _coco_pairs(text: str, fold: Fold, path: Path) -> Pairs:
    try:
        content = json.loads(text)
        template, images = content["path"], content["images"]
        classes = [int(c) for c in content["folds"][str(fold.number)]]
        names = {c: [PurePosixPath(template % number).stem for number in images[str(c)]] for c in classes}
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: is no list of HSNet, or has no fold {fold.number}") from None
    positions = _positions(fold)
    missing = [name for listed in names.values() for name in listed if name not in positions]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} images, first {missing[0]}, are not in {fold.val_list}; "
            "the list is of another data set"
        )
    return [(positions[name], c + 1) for c, listed in names.items() for name in listed]


def _positions(fold: Fold) -> dict[str, int]:
    return {PurePosixPath(name).name: position for name, position in fold.val_images.position.items()}


def _lists(pairs: Pairs, fold: Fold, path: Path) -> EpisodeLists:
    foreign = sorted({class_id for _, class_id in pairs} - set(fold.classes.novel))
    if foreign:
        raise DataError(f"{path}: lists class {foreign[0]}, which fold {fold.number} does not test")
    supports: dict[int, list[int]] = {}
    candidates: dict[int, list[int]] = {}
    for position, class_id in pairs:
        supports.setdefault(class_id, []).append(position)
        candidates.setdefault(position, []).append(class_id)
    return EpisodeLists(
        source=fold.val_images,
        classes=tuple(sorted(supports)),
        queries=tuple(candidates),
        candidates=tuple(tuple(classes) for classes in candidates.values()),
        supports={class_id: tuple(positions) for class_id, positions in supports.items()},
    )
