"""The embedded data set "Shapes": drawn by code in seconds, in the folder layout of PASCAL VOC.

Pictures are PNG files: a JPEG may be decoded differently on another machine, and the pixels must not differ.
The folder has a fingerprint of the settings that it was drawn with, and is either complete or absent.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fewseg.dataset.shapes.forms import CLASS_NAMES
from fewseg.dataset.shapes.scene import draw_scene
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map

VERSION = 1
"""Incremented whenever the same seed gives other pixels."""

FINGERPRINT_FILE = "shapes.json"
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
    root = Path(root)
    if images < 4 or size < SMALLEST_SIZE or seed < 0:
        raise DataError(
            f"Shapes: images={images}, size={size}, seed={seed} make no data set; choose at least 4 images "
            f"of {SMALLEST_SIZE} px and a seed of 0 or more"
        )
    sizes = {"version": VERSION, "images": images, "size": size, "seed": seed}
    fingerprint: dict[str, str | int] = {"data_set": "shapes", **sizes}
    if _holds(root, fingerprint):
        return False
    folder: Path | None = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        folder.chmod(0o755)  # mkdtemp creates folders that only their owner can read
        _draw_all(folder, images, size, seed, workers)
        _write_lists(folder, images)
        (folder / FINGERPRINT_FILE).write_text(json.dumps(fingerprint, indent=1) + "\n", encoding="utf-8")
        folder.replace(root)
        folder = None
    except OSError as failure:
        raise DataError(
            f"{root}: cannot be written ({failure.strerror or failure}); free space or choose another folder"
        ) from failure
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return True


def _holds(root: Path, fingerprint: dict[str, str | int]) -> bool:
    """Whether ``root`` holds this data set, False if it is empty; DataError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        other = json.loads((root / FINGERPRINT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"{root}: holds something other than Shapes; choose another folder or empty it"
        ) from None
    if other != fingerprint:
        settings = (
            " ".join(f"{key}={value}" for key, value in other.items()) if isinstance(other, dict) else other
        )
        raise DataError(
            f"{root}: holds Shapes drawn with other settings ({settings}); choose another folder or delete it"
        )
    return True


def _image_id(index: int) -> str:
    return f"shapes_{index:05d}"


def _draw_all(folder: Path, images: int, size: int, seed: int, workers: int | None) -> None:
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    draw = partial(_draw_file, folder, size, seed)
    for _ in parallel_map(draw, range(images), title="drawing Shapes", workers=workers):
        pass


def _draw_file(folder: Path, size: int, seed: int, index: int) -> None:
    picture, label = draw_scene(seed, index, size)
    name = f"{_image_id(index)}.png"
    Image.fromarray(picture).save(folder / "JPEGImages" / name, compress_level=1)
    mask = Image.fromarray(label, mode="P")
    mask.putpalette(voc_palette().tobytes())
    mask.save(folder / "SegmentationClass" / name)


def voc_palette() -> np.ndarray:
    """Return VOC's colours, uint8 [256,3]: bits 0, 3, 6 of an id give the highest bits of red, and so on."""
    ids = np.arange(256)
    colour = np.zeros((256, 3), np.int64)
    for bit in range(8):
        colour[:, bit % 3] |= (ids >> bit & 1) << (7 - bit // 3)
    return colour.astype(np.uint8)


def _write_lists(folder: Path, images: int) -> None:
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for index in range(images):
        lists["val" if index % 4 == 3 else "train"].append(_image_id(index))
    for name, ids in lists.items():
        path = folder / "ImageSets" / "Segmentation" / f"{name}.txt"
        path.write_text("\n".join(ids) + "\n", encoding="utf-8")
    (folder / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
