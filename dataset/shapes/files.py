"""The embedded data set "Shapes": drawn by code in seconds, in the folder layout of PASCAL VOC."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fewseg.dataset.shapes.drawing import draw_once, save_mask, save_picture, write_lines
from fewseg.dataset.shapes.forms import CLASS_NAMES
from fewseg.dataset.shapes.scene import draw_scene
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map

VERSION = 1
"""Incremented whenever the same seed gives other pixels."""

SMALLEST_SIZE = 64


def draw_shapes(
    root: str | Path, images: int = 1500, size: int = 144, seed: int = 0, workers: int | None = None
) -> bool:
    """Draw the data set into ``root``: JPEGImages, SegmentationClass, ImageSets/Segmentation, classes.txt.

    Every fourth picture is for validation. A picture depends only on ``size``, ``seed`` and its index.

    Args:
        root: a missing or empty folder, or one drawn with the same settings, which is not changed.
        images: number of pictures, training and validation together.
        size: side of the square pictures in pixels.
        seed: seed of all random draws.
        workers: processes to draw with, by default one per core; 0 draws in this process.

    Returns:
        Whether it was drawn; False if an identical data set was there already.

    Raises:
        DataError: the settings are invalid, or the folder holds anything else or cannot be written.
    """
    if images < 4 or size < SMALLEST_SIZE or seed < 0:
        raise DataError(
            f"Shapes: images={images}, size={size}, seed={seed} make no data set; choose at least 4 images "
            f"of {SMALLEST_SIZE} px and a seed of 0 or more"
        )
    settings = {"images": images, "size": size, "seed": seed}

    def draw(folder: Path) -> None:
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (folder / name).mkdir(parents=True)
        draw_one = partial(_draw_file, folder, size, seed)
        for _ in parallel_map(draw_one, range(images), title="drawing Shapes", workers=workers):
            pass
        _write_lists(folder, images)

    return draw_once(root, "Shapes", {"data_set": "shapes", "version": VERSION, **settings}, draw)


def _image_id(index: int) -> str:
    return f"shapes_{index:05d}"


def _draw_file(folder: Path, size: int, seed: int, index: int) -> None:
    picture, label = draw_scene(seed, index, size)
    name = f"{_image_id(index)}.png"
    save_picture(folder / "JPEGImages" / name, picture)
    save_mask(folder / "SegmentationClass" / name, label)


def _write_lists(folder: Path, images: int) -> None:
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for index in range(images):
        lists["val" if index % 4 == 3 else "train"].append(_image_id(index))
    for name, ids in lists.items():
        write_lines(folder / "ImageSets" / "Segmentation" / f"{name}.txt", ids)
    write_lines(folder / "classes.txt", list(CLASS_NAMES))
