"""Placing the images and masks of a data set with a folder per class, such as FSS-1000, in a data root."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fewseg.dataset.lists.image_lists import IMAGE_FOLDER
from fewseg.dataset.prepare.files import place, write_png
from fewseg.dataset.reading.mask import open_pair
from fewseg.dataset.reading.own_mask import read_binary
from fewseg.util.parallel import parallel_map

MASKS = "SegmentationClass"

Pairs = dict[str, list[tuple[Path, Path]]]
"""The image and the mask of every picture, by class."""

Read = Callable[[Path], np.ndarray]
"""Reads a mask of 0 and 1, uint8 [H,W]."""


def as_word(name: str) -> str:
    """Return a name with underscores for blanks, because lists are split at blanks."""
    return "_".join(name.split())


def image_path(class_name: str, name: str) -> str:
    """Return where an image of a class lies below the root; ``name`` has a suffix."""
    return f"{IMAGE_FOLDER}/{class_name}/{name}"


def mask_path(class_name: str, stem: str) -> str:
    """Return where the mask of an image lies below the root."""
    return f"{MASKS}/{class_name}/{stem}.png"


def place_images(
    pairs: Pairs, root: Path, title: str, *, read: Read = read_binary, workers: int | None = None
) -> dict[str, list[str]]:
    """Link the images and write masks of 0 and 1, except those that are already there.

    Args:
        pairs: the pictures.
        root: the data root.
        title: name of the data set, for the progress bar.
        read: how a mask is read.
        workers: see ``parallel_map``.

    Returns:
        The lines of an image list, by class.

    Raises:
        DataError: a file cannot be read, or a mask has another size than its image.
    """
    jobs = [(name, image, mask) for name, found in pairs.items() for image, mask in found]
    lines = parallel_map(partial(_place, root, read), jobs, title=f"placing {title}", workers=workers)
    return {name: [next(lines) for _ in found] for name, found in pairs.items()}


def _place(root: Path, read: Read, job: tuple[str, Path, Path]) -> str:
    name, image, mask = job
    stem = as_word(image.stem)
    to_image, to_mask = image_path(name, stem + image.suffix.lower()), mask_path(name, stem)
    if not (root / to_mask).is_file():
        open_pair(image, mask)  # compares their sizes
        write_png(root / to_mask, read(mask))
    place(image, root / to_image)
    return f"{to_image} {to_mask}"
