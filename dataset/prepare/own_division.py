"""The division of a user's own images into training and test images."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from pathlib import Path, PurePosixPath

from fewseg.dataset.prepare.folder import Placed
from fewseg.dataset.prepare.own_layout import IMAGE_FOLDERS, IMAGE_SUFFIXES, part_of
from fewseg.util.errors import DataError

Parts = dict[str, list[str]]
"""Names of the pictures of ``train`` and ``val``."""


def divide(source: Path, placed: Sequence[Placed], share: float, seed: int) -> Parts:
    """Divide pictures by the lists in the folder, or else by its subfolders, or else randomly."""
    names = [picture.name for picture in placed]
    return given_lists(source, set(names)) or folder_lists(names) or draw_lists(placed, share, seed)


def folder_lists(names: Iterable[str]) -> Parts | None:
    """Return the pictures in folders ``train`` and ``val`` (or similar names), if all are in such folders."""
    parts: Parts = {"train": [], "val": []}
    for name in names:
        part = part_of(name)
        if part is None:
            return None
        parts[part].append(name)
    return parts if all(parts.values()) else None


def given_lists(source: Path, known: Container[str]) -> Parts | None:
    """Return the pictures in the folder's ``train.txt`` and ``val.txt`` (or ``test.txt``), if it has both.

    Lines are ids, file names, or image and mask, as in ``dataset.lists.image_lists``; ids may hold blanks.

    Raises:
        DataError: a line names no picture in ``known``.
    """
    for folder in (source / "ImageSets" / "Segmentation", source):
        for second in ("val", "test"):
            paths = {"train": folder / "train.txt", "val": folder / f"{second}.txt"}
            if all(path.is_file() for path in paths.values()):
                return {part: _read_list(path, known) for part, path in paths.items()}
    return None


def _read_list(path: Path, known: Container[str]) -> list[str]:
    names = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        readings = [_name(line), _name(line.split()[0])]
        name = next((name for name in readings if name in known), None)
        if name is None:
            shown = readings[PurePosixPath(line.split()[0]).suffix.lower() in IMAGE_SUFFIXES]
            raise DataError(f"{path}:{number}: {shown} has no image with a mask; correct the list")
        names.append(name)
    return names


def _name(word: str) -> str:
    """Return the name of a picture that a list gives by id, file name or path."""
    path = PurePosixPath(word.strip())
    if path.suffix.lower() in IMAGE_SUFFIXES:
        path = path.with_suffix("")
    parts = path.parts[1:] if path.parts[0] in IMAGE_FOLDERS else path.parts
    return "_".join("/".join(parts).split())


def draw_lists(placed: Sequence[Placed], share: float, seed: int) -> Parts:
    """Divide pictures randomly into train and val, so that every class, rarest first, has its share in both.

    Raises:
        DataError: there are fewer than 2 pictures, or the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise DataError(f"--val-share {share:g}: give the share of the test images, between 0 and 1")
    if len(placed) < 2:
        raise DataError(f"{len(placed)} picture cannot be divided into training and test; give at least 2")
    shuffled = random.Random(seed).sample(list(placed), len(placed))
    showing = defaultdict(list)
    for picture in shuffled:
        for label in picture.labels or (0,):
            showing[label].append(picture)
    part: dict[str, str] = {}
    for label in sorted(showing, key=lambda c: (len(showing[c]), c)):
        pictures = showing[label]
        wanted = max(1, round(share * len(pictures))) if len(pictures) > 1 else 0
        chosen = sum(part.get(picture.name) == "val" for picture in pictures)
        for picture in pictures:
            if picture.name not in part:
                part[picture.name] = "val" if chosen < wanted else "train"
                chosen += part[picture.name] == "val"
    return {which: [p.name for p in placed if part[p.name] == which] for which in ("train", "val")}
