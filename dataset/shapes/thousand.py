"""The embedded data set "Shapes-1000", in the manner of FSS-1000: many classes, ten pictures of each.

A class is a form with a texture and a cut-out ("striped holed star"): 10 forms x 5 textures x 5 cut-outs make
250 classes. One large object of the class lies in front; smaller objects of five or six other classes, which
no mask of the class shows, belong to the background. Colour, contrast, rotation and position do not depend on
the class.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewseg.dataset.lists.image_lists import OBJECT_FOLDER
from fewseg.dataset.shapes.drawing import draw_once, save_mask, save_picture, write_lines
from fewseg.dataset.shapes.files import SMALLEST_SIZE
from fewseg.dataset.shapes.forms import CUT_OUTS, SOLID_FORMS, TEXTURES, Draws, Integers
from fewseg.dataset.shapes.painting import Placed, background, finish, paint, place
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map

VERSION = 1
"""Incremented whenever the same seed gives other pixels."""

_PARTS = ("train", "train", "train", "val", "test")
_OTHERS = (5, 6)  # number of objects in the background
_LARGE, _SMALL = (20, 30), (4, 8)  # area of the object of the class, and of the others, in per cent
_STREAMS = 10_000  # pictures of a class that have random numbers of their own


class Kind(NamedTuple):
    """A class: what its objects look like."""

    texture: str
    cut_out: str
    form: str

    @property
    def name(self) -> str:
        """The name of the class and of its folder."""
        return "_".join(self)


def kinds() -> dict[str, list[Kind]]:
    """Return the classes of the lists ``train`` (150), ``val`` (50) and ``test`` (50).

    The positions of form, texture and cut-out in their tables, added up and divided by five, leave the part:
    each form, texture and cut-out, and each pair of them, occurs in every part, but a whole combination in
    one part only.
    """
    parts: dict[str, list[Kind]] = {"train": [], "val": [], "test": []}
    textures = (*TEXTURES, "dotted")
    for f, t, c in product(range(len(SOLID_FORMS)), range(len(textures)), range(len(CUT_OUTS))):
        parts[_PARTS[(f + t + c) % len(_PARTS)]].append(Kind(textures[t], CUT_OUTS[c], SOLID_FORMS[f]))
    return {part: sorted(classes) for part, classes in parts.items()}


def draw_shapes1000(
    root: str | Path, images: int = 10, size: int = 96, seed: int = 0, workers: int | None = None
) -> bool:
    """Draw the data set into ``root``, with a folder per class and the lists train, val and test.

    SegmentationClass shows the object of the class as 1, all else as 0. SegmentationObject numbers it and the
    objects of the background. A picture depends only on ``size``, ``seed``, its class and its number.

    Args:
        root: a missing or empty folder, or one drawn with the same settings, which is not changed.
        images: pictures per class.
        size: side of the square pictures in pixels.
        seed: seed of all random draws.
        workers: processes to draw with, by default one per core; 0 draws in this process.

    Returns:
        Whether it was drawn; False if an identical data set was there already.

    Raises:
        DataError: the settings are invalid, or the folder holds anything else or cannot be written.
    """
    if not 2 <= images <= _STREAMS or size < SMALLEST_SIZE or seed < 0:
        raise DataError(
            f"Shapes-1000: images={images}, size={size}, seed={seed} make no data set; choose 2 to "
            f"{_STREAMS} images per class of at least {SMALLEST_SIZE} px and a seed of 0 or more"
        )
    settings = {"images": images, "size": size, "seed": seed}
    draw = partial(_draw_all, images=images, size=size, seed=seed, workers=workers)
    return draw_once(root, "Shapes-1000", {"data_set": "shapes1000", "version": VERSION, **settings}, draw)


def _draw_all(folder: Path, *, images: int, size: int, seed: int, workers: int | None) -> None:
    parts = kinds()
    every = sorted(kind for classes in parts.values() for kind in classes)
    for name, kind in product(("JPEGImages", "SegmentationClass", OBJECT_FOLDER), every):
        (folder / name / kind.name).mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    draw = partial(_draw_class, folder, images, size, seed)
    for _ in parallel_map(draw, every, title="drawing Shapes-1000", workers=workers):
        pass
    for part, classes in parts.items():
        names = [f"{kind.name}/{number}.png" for kind in classes for number in range(1, images + 1)]
        lines = [f"JPEGImages/{name} SegmentationClass/{name}" for name in names]
        write_lines(folder / "ImageSets" / "Segmentation" / f"{part}.txt", lines)
    write_lines(folder / "classes.txt", ["background", *sorted(kind.name for kind in every)])


def _draw_class(folder: Path, images: int, size: int, seed: int, kind: Kind) -> None:
    for number in range(1, images + 1):
        picture, objects = draw_single(seed, kind, number, size)
        name = f"{kind.name}/{number}.png"
        save_picture(folder / "JPEGImages" / name, picture)
        save_mask(folder / "SegmentationClass" / name, (objects == 1).astype(np.uint8))
        save_mask(folder / OBJECT_FOLDER / name, objects)


def draw_single(seed: int, kind: Kind, number: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return RGB picture [size,size,3] and objects [size,size] of the ``number``-th picture of a class.

    The object of the class has number 1, those of the background the following ones.
    """
    part, order = _part_and_order(kind)
    draws = Draws(seed, (1 + order) * _STREAMS + number)  # Shapes uses the numbers before
    # Others share neither texture nor form nor cut-out: small networks are to tell them apart.
    rest = [other for other in part if not set(other) & set(kind)]
    shown = [kind] + [rest[draws.between(0, len(rest) - 1)] for _ in range(draws.between(*_OTHERS))]
    picture, ground = background(draws, size)
    objects = np.zeros((size, size), np.int64)
    placed: list[Placed] = []
    for position, one in enumerate(shown, start=1):
        area = size * size * draws.between(*(_LARGE if position == 1 else _SMALL)) // 100
        placed.append(_free_place(draws, objects, one, area, size))
        free = objects[placed[-1].rows, placed[-1].columns] == 0
        objects[placed[-1].rows[free], placed[-1].columns[free]] = position
    for one, where in reversed(list(zip(shown, placed, strict=True))):
        paint(draws, picture, where, one.texture, ground)
    return finish(draws, picture), objects.astype(np.uint8)


def _part_and_order(kind: Kind) -> tuple[list[Kind], int]:
    """Return the classes of the list that holds the class, and the position of the class among all."""
    parts = kinds()
    part = next(classes for classes in parts.values() if kind in classes)
    return part, sorted(k for classes in parts.values() for k in classes).index(kind)


def _free_place(draws: Draws, objects: Integers, kind: Kind, area: int, size: int) -> Placed:
    """Return a place where earlier objects cover at most a third of this one, which shrinks if need be."""
    while True:
        placed = place(draws, kind.form, area, size, kind.cut_out)
        if 3 * np.count_nonzero(objects[placed.rows, placed.columns]) <= len(placed.rows):
            return placed
        area = area * 95 // 100
