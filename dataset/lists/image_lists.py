"""The images that a data set lists, and those of them that the episodes of a fold are drawn from."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from fewseg.dataset.classes.split import ClassSplit
from fewseg.dataset.labels import VOID
from fewseg.dataset.lists.area_index import AreaIndex, index_masks
from fewseg.util.errors import DataError
from fewseg.util.files import read_text, require_inside

MIN_AREA = 2 * 32 * 32
"""Pixels at original resolution that a class must cover in an image to be listed for it."""

_NO_BASE = "base classes to train on; test on it, or change folds"

IMAGE_FOLDER = "JPEGImages"
LIST_FOLDER = "ImageSets/Segmentation"
MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")
OBJECT_FOLDER = "SegmentationObject"
IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True)
class ImageList:
    """Images with their masks, in the order of a list file.

    Attributes:
        root: data root.
        names: names of the images in episodes: the VOC id, or the path without suffix.
        images, masks: paths below the root.
        class_ids: the class of every image, where every image shows one class and its mask is 0 and 1.
    """

    root: Path
    names: tuple[str, ...]
    images: tuple[str, ...]
    masks: tuple[str, ...]
    class_ids: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def position(self) -> dict[str, int]:
        """Position of every name."""
        return {name: i for i, name in enumerate(self.names)}

    def index(self, progress: bool = True) -> AreaIndex:
        """Return the label areas of the masks."""
        areas = index_masks(self.root, self.masks, progress=progress)
        return areas if self.class_ids is None else areas.with_class_ids(self.class_ids)

    def with_class_id(self, position: int, mask: np.ndarray) -> np.ndarray:
        """Return a mask with its 1 replaced by the image's class id, if the list has ``class_ids``."""
        if self.class_ids is None:
            return mask
        return np.where(mask == 1, np.uint16(self.class_ids[position]), mask.astype(np.uint16))


def read_image_list(root: str | Path, path: str | Path) -> ImageList:
    """Read a list of images: one VOC id per line, or ``image mask`` with paths below ``root``.

    Repeated lines count once, with a warning: an image must never be its own support.

    Raises:
        DataError: the root or the list is missing, or the list is empty, has a line of another form, a path
            that leads out of the root, or the same image with different files.
    """
    root, path = Path(root), Path(path)
    if not root.is_dir():
        raise DataError(f"{root}: the data root is missing; set Data.data_root or prepare the data set first")
    lines = read_text(path, "the image list").splitlines()
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f"{path}: the image list is empty")
    voc = _VocLayout(root) if any(len(fields) == 1 for _, fields in rows) else None
    files_of: dict[str, tuple[str, str]] = {}
    for number, fields in rows:
        for field in fields:
            require_inside(field, f"{path}:{number}")
        if len(fields) == 1 and voc is not None:
            name, pair = fields[0], (voc.image(fields[0]), voc.mask(fields[0]))
        elif len(fields) == 2:
            name, pair = _name(fields[0]), (fields[0], fields[1])
        else:
            raise DataError(
                f"{path}:{number}: expected an image id or 'image mask', found {len(fields)} fields"
            )
        if files_of.setdefault(name, pair) != pair:
            raise DataError(
                f"{path}:{number}: {name} is listed before with other files; keep one of the lines"
            )
    if len(files_of) < len(rows):
        repeated = len(rows) - len(files_of)
        warnings.warn(f"{path}: {repeated} lines repeat an earlier one and are left out", stacklevel=2)
    images, masks = zip(*files_of.values(), strict=True)
    return ImageList(root, tuple(files_of), images, masks)


def _name(image: str) -> str:
    return os.path.splitext(image)[0].removeprefix(f"{IMAGE_FOLDER}/")


class _VocLayout:
    """Where a VOC-like folder keeps the image and the mask of an id."""

    def __init__(self, root: Path) -> None:
        folder = next((name for name in MASK_FOLDERS if (root / name).is_dir()), None)
        if folder is None or not (root / IMAGE_FOLDER).is_dir():
            raise DataError(
                f"{root}: needs the folders {IMAGE_FOLDER} and {MASK_FOLDERS[0]} or {MASK_FOLDERS[1]}"
            )
        self.mask_folder = folder
        found = {p.suffix for p in (root / IMAGE_FOLDER).iterdir()}
        self.suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in found), IMAGE_SUFFIXES[0])

    def image(self, name: str) -> str:
        return f"{IMAGE_FOLDER}/{name}{self.suffix}"

    def mask(self, name: str) -> str:
        return f"{self.mask_folder}/{name}.png"


@dataclass(frozen=True)
class EpisodeLists:
    """The images and classes that episodes of a fold are drawn from, either of base or of novel classes.

    Attributes:
        source: the images; all positions below are positions in this list.
        classes: ids of the classes that can be drawn, ascending.
        queries: positions of the query images, in list order.
        candidates: for every query, the classes that may be segmented: all that it shows, of any area.
        supports: class id -> positions of its support images, in which it covers the minimum area.
    """

    source: ImageList
    classes: tuple[int, ...]
    queries: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]
    supports: dict[int, tuple[int, ...]]

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Every query with every class that it is listed for, in list order."""
        listed = {c: frozenset(positions) for c, positions in self.supports.items()}
        return tuple((query, c) for query in self.queries for c in self.classes if query in listed[c])


def check_labels(areas: AreaIndex, classes: int, root: str | Path) -> None:
    """Raise DataError if a mask holds a label above ``classes`` other than void, or only void."""
    root = Path(root)
    wrong = (areas.label > classes) & (areas.label != VOID)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        mask = int(np.searchsorted(areas.start, first, side="right")) - 1
        others = len(np.unique(np.searchsorted(areas.start, np.flatnonzero(wrong), side="right"))) - 1
        more = f" (and {others} more masks)" if others else ""
        raise _outside(root / areas.names[mask], areas.label[first], classes, more)
    lengths = np.diff(areas.start)
    void_only = np.flatnonzero(lengths == 1)
    void_only = void_only[areas.label[areas.start[void_only]] == VOID]
    if len(void_only):
        more = f" (and {len(void_only) - 1} more masks)" if len(void_only) > 1 else ""
        name = root / areas.names[void_only[0]]
        raise DataError(f"{name}: every pixel is void{more}; take the image off the list")


def check_mask(path: Path, mask: np.ndarray, classes: int) -> None:
    """Raise DataError if the mask [H,W] read from ``path`` holds a label above ``classes`` other than void.

    ``check_labels`` has found none when the list was opened, but a mask can be changed after that.
    """
    wrong = (mask > classes) & (mask != VOID)
    if wrong.any():
        raise _outside(path, mask[wrong][0], classes)


def _outside(path: Path, label: int, classes: int, more: str = "") -> DataError:
    return DataError(
        f"{path}: label {label} lies outside the classes 0..{classes} and {VOID}{more}; a palette mask "
        "decoded to grey looks like this"
    )


def episode_lists(
    source: ImageList,
    areas: AreaIndex,
    split: ClassSplit,
    *,
    novel: bool,
    shot: int,
    drop_unwanted: bool = False,
    min_area: int = MIN_AREA,
    small_classes: str = "error",
) -> EpisodeLists:
    """Derive the lists of a fold.

    Args:
        source: the images.
        areas: their label areas, in the same order.
        split: the fold's classes.
        novel: whether episodes segment the novel classes (test) or the base classes (training).
        shot: supports per episode.
        drop_unwanted: leave out every image with a pixel of the other classes (novel or held out in training,
            base in testing), as BAM's training lists do (``novel_in_train: remove``).
        min_area: pixels that a class must cover to be listed.
        small_classes: a class that has images, but fewer than ``shot + 1``, is an ``error``, or is left out
            with a warning (``leave_out``). A class without any image is always left out with a warning.

    Raises:
        DataError: there is a small class under ``error``, or no class can be drawn.
    """
    wanted, other = (split.novel, split.base) if novel else (split.base, split.unseen)
    if not wanted:
        lack = "novel classes to test; test its models on other data (--data)" if novel else _NO_BASE
        raise DataError(f"{source.root}: the fold has no {lack}")
    check_labels(areas, len(split.names) - 1, source.root)
    listed = areas.at_least(wanted, max(min_area, 1))
    if drop_unwanted:
        listed &= ~areas.at_least(other).any(axis=1, keepdims=True)
    supports = {c: tuple(np.flatnonzero(listed[:, i]).tolist()) for i, c in enumerate(wanted)}
    classes = _drawable(supports, split, shot, source.root, small_classes, drop_unwanted)
    columns = [wanted.index(c) for c in classes]
    queries = np.flatnonzero(listed[:, columns].any(axis=1)).tolist()
    rows, shown = areas.at_least(classes)[queries].nonzero()
    ids = np.asarray(classes)[shown].tolist()
    ends = np.searchsorted(rows, np.arange(len(queries) + 1)).tolist()
    candidates = tuple(tuple(ids[begin:end]) for begin, end in pairwise(ends))
    return EpisodeLists(source, classes, tuple(queries), candidates, {c: supports[c] for c in classes})


def generalized_lists(
    source: ImageList,
    areas: AreaIndex,
    split: ClassSplit,
    *,
    shot: int,
    small_classes: str = "error",
) -> EpisodeLists:
    """Derive the lists of generalised few-shot segmentation: every image is a query, of any class area.

    A query without base classes is paired with a novel class that it shows, any other with any novel class.
    """
    shown = episode_lists(
        source, areas, split, novel=True, shot=shot, min_area=1, small_classes=small_classes
    )
    has_base = np.any(areas.at_least(split.base), axis=1)
    present = dict(zip(shown.queries, shown.candidates, strict=True))
    candidates = tuple(
        shown.classes if has_base[i] else present.get(i, shown.classes) for i in range(len(source))
    )
    return EpisodeLists(source, shown.classes, tuple(range(len(source))), candidates, shown.supports)


def _drawable(
    supports: dict[int, tuple[int, ...]],
    split: ClassSplit,
    shot: int,
    root: Path,
    small_classes: str,
    drop_unwanted: bool,
) -> tuple[int, ...]:
    few = {c: len(images) for c, images in supports.items() if len(images) <= shot}
    counts = ", ".join(f"{split.names[c]} ({c}) has {n}" for c, n in few.items())
    message = f"{root}: a {shot}-shot episode needs {shot + 1} images of a class, but {counts}"
    if len(few) == len(supports):
        keep = ", or keep images with novel classes by --opts novel_in_train background" * drop_unwanted
        raise DataError(
            f"{message}: no class of the fold is left; check the fold, the list, the shot and min_area{keep}"
        )
    if any(few.values()) and small_classes == "error":
        raise DataError(f"{message}; lower the shot or min_area, or set small_classes: leave_out")
    if few:
        warnings.warn(f"{message}: left out of this fold's episodes", stacklevel=3)
    return tuple(c for c in supports if c not in few)
