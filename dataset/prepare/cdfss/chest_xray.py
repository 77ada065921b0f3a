"""Chest X-rays of Montgomery County and Shenzhen, with masks of both lungs: a single class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewseg.dataset.prepare.cdfss.found import files_below, folders_named
from fewseg.dataset.prepare.class_pairs import Pairs
from fewseg.dataset.reading.own_mask import read_binary
from fewseg.util.errors import DataError
from fewseg.util.log import get_log

NAME = "lung"
IMAGES, MASKS = ("cxr_png",), ("masks", "mask", "leftmask")
_SUFFIX = "_mask"


def find_lungs(sources: Sequence[Path], *, subset: bool = False) -> Pairs:
    """Return the X-rays that have a mask, with these masks.

    X-rays lie in folders ``CXR_png``. The mask of ``x.png`` is ``x_mask.png`` or ``x.png`` in a folder
    ``masks`` or ``mask``, or two files ``x.png`` in the folders ``leftMask`` and ``rightMask`` (Montgomery).

    Raises:
        DataError: there are no X-rays or masks, an X-ray has two masks, or a mask has no X-ray.
    """
    images = _by_name(folders_named(sources, *IMAGES), "X-rays in folders CXR_png", sources[0])
    masks = _by_name(folders_named(sources, *MASKS), "masks in a folder masks, mask or leftMask", sources[0])
    absent = sorted(set(masks) - set(images))
    if absent and (not subset or len(absent) == len(masks)):
        raise DataError(
            f"{masks[absent[0]]}: its X-ray {absent[0]}.png is missing (one of {len(absent)}); fetch the "
            "X-rays again, or accept a part of the data set by --subset"
        )
    if absent:
        message = "%s: %d masks have no X-ray and are left out, first %s"
        get_log("prepare").warning(message, sources[0], len(absent), absent[0])
    return {NAME: [(images[name], masks[name]) for name in sorted(set(masks) & set(images))]}


def _by_name(folders: Sequence[Path], what: str, source: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in (path for folder in folders for path in files_below(folder, "*.png")):
        name = path.stem.removesuffix(_SUFFIX)
        if name in files:
            raise DataError(f"{path}: {files[name]} is of the same X-ray; give a folder with one of them")
        files[name] = path
    if not files:
        raise DataError(f"{source}: has no {what}; give the folder of the chest X-rays, or its archive")
    return files


def read_lungs(path: Path) -> np.ndarray:
    """Read the mask of both lungs, uint8 [H,W] of 0 and 1, from one file or from one for each lung.

    Raises:
        DataError: a file cannot be read, or the masks of the two lungs differ in size.
    """
    mask = read_binary(path)
    if path.parent.name.lower() != "leftmask":
        return mask
    right = path.parent.with_name("rightMask") / path.name
    other = read_binary(right)
    if other.shape != mask.shape:
        raise DataError(f"{right}: has another size than the mask of the left lung, {path}; fetch both again")
    return mask | other
