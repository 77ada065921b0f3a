"""DeepGlobe's land cover: six classes on satellite images, which CD-FSS cuts into tiles.

The published preparation (``data/preprocess.py`` of PATNet) cuts an image of 2448 x 2448 pixels into 6 x 6
tiles, keeps a tile if its mask has several colours of which none is rare, and makes a mask for each class
that occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from fewseg.dataset.prepare.cdfss.found import complete, files_below, folders
from fewseg.dataset.prepare.class_pairs import Pairs, as_word, image_path, mask_path
from fewseg.dataset.prepare.files import place, put, write_png
from fewseg.dataset.reading.mask import check_same_size, read_image
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map

NAMES = ("agriculture", "urban", "rangeland", "forest", "water", "barren")
"""The classes in the order of the published folders 1 to 6."""

COLOURS = {"agriculture": 6, "urban": 3, "rangeland": 5, "forest": 2, "water": 1, "barren": 7}
"""The colour of every class: 4 if it has red, plus 2 if it has green, plus 1 if it has blue. 0 is unknown."""

TILES = 6
"""Tiles along each side of an image."""

RAREST = 0.048
"""Share of a tile that the rarest of its colours must exceed."""

_IMAGE, _MASK = "_sat.jpg", "_mask.png"


def find_tiles(sources: Sequence[Path], *, subset: bool = False) -> Pairs:
    """Return the prepared tiles: ``<1..6>/test/origin/*.jpg`` and ``<1..6>/test/groundtruth/*.png``.

    Returns:
        The pairs by class; no classes where no folder has this layout.

    Raises:
        DataError: a class has no folder or no images, or an image has no mask.
    """
    base = next((folder for folder in folders(sources) if (folder / "1" / "test" / "origin").is_dir()), None)
    if base is None:
        return {}
    pairs: Pairs = {}
    for number, name in enumerate(NAMES, 1):
        origin, truth = (base / str(number) / "test" / part for part in ("origin", "groundtruth"))
        images = files_below(origin, "*.jpg") if origin.is_dir() else []
        if not images and subset:
            continue
        if not images:
            raise DataError(
                f"{origin}: has no images of {name}, class {number} of {len(NAMES)}; fetch them again, or "
                "accept a part of the data set by --subset"
            )
        pairs[name] = [(image, truth / f"{image.stem}.png") for image in images]
    return complete(pairs, "DeepGlobe", subset=subset)


def find_images(sources: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return the whole images ``<id>_sat.jpg`` that have a mask ``<id>_mask.png``, and these masks.

    Raises:
        DataError: there are none.
    """
    images = [image for source in sources for image in files_below(source, f"*{_IMAGE}")]
    pairs = [(image, image.with_name(image.name.removesuffix(_IMAGE) + _MASK)) for image in images]
    masked = [(image, mask) for image, mask in pairs if mask.is_file()]
    if not masked:
        raise DataError(
            f"{sources[0]}: has neither images <id>{_IMAGE} with masks <id>{_MASK}, nor tiles in "
            "<1..6>/test/origin; give the folder of DeepGlobe's land cover, or its archive"
        )
    return masked


def place_tiles(
    images: Sequence[tuple[Path, Path]], root: Path, *, subset: bool = False, workers: int | None = None
) -> dict[str, list[str]]:
    """Cut images into tiles and write those that stay, except what is already there.

    Returns:
        The lines of an image list, by class.

    Raises:
        DataError: a file cannot be read, a mask has another size than its image or a colour of no class, or
            a class has no tile.
    """
    lines: dict[str, list[str]] = {name: [] for name in NAMES}
    done = parallel_map(partial(_cut, root), images, title="cutting DeepGlobe", workers=workers)
    for name, line in (pair for found in done for pair in found):
        lines[name].append(line)
    empty = next((name for name, found in lines.items() if not found), None)
    if empty is not None and not subset:
        raise DataError(
            f"{images[0][0].parent}: no tile shows {empty}; fetch the data set again, or accept a part of it "
            "by --subset"
        )
    return {name: found for name, found in lines.items() if found}


def _cut(root: Path, files: tuple[Path, Path]) -> list[tuple[str, str]]:
    """Write the tiles of one image; return the class and the line of each."""
    path, mask_file = files
    image, colours = read_image(path), read_colours(mask_file)
    check_same_size(image, colours, path, mask_file)
    lines = []
    for position, window in windows(*colours.shape):
        tile = colours[window]
        if not stays(tile):
            continue
        stem = as_word(path.name.removesuffix(_IMAGE)) + f"_{position}"
        shown = [name for name in NAMES if (tile == COLOURS[name]).any()]
        first = root / image_path(shown[0], f"{stem}.jpg")
        if not first.is_file():
            put(first, partial(_write_jpeg, np.ascontiguousarray(image[window])))
        for name in shown:
            to_image, to_mask = image_path(name, f"{stem}.jpg"), mask_path(name, stem)
            if name != shown[0]:
                place(first, root / to_image)
            if not (root / to_mask).is_file():
                write_png(root / to_mask, (tile == COLOURS[name]).astype(np.uint8))
            lines.append((name, f"{to_image} {to_mask}"))
    return lines


def read_colours(path: Path) -> np.ndarray:
    """Read a mask as the colours of ``COLOURS``, uint8 [H,W]; a channel counts from 128 on, as published.

    Raises:
        DataError: the file cannot be read, or a pixel is red, which stands for no class.
    """
    red, green, blue = np.moveaxis(read_image(path) >= 128, -1, 0)
    colours = (4 * red + 2 * green + blue).astype(np.uint8)
    if (colours == 4).any():
        raise DataError(
            f"{path}: has red pixels, but red is no class of DeepGlobe's land cover; fetch it again"
        )
    return colours


def windows(height: int, width: int) -> Iterator[tuple[str, tuple[slice, slice]]]:
    """Yield the digits of row and column of every tile, and its rows and columns in the image."""
    for row in range(TILES):
        for column in range(TILES):
            rows, columns = (
                slice(i * side // TILES, (i + 1) * side // TILES)
                for i, side in ((row, height), (column, width))
            )
            yield f"{row}{column}", (rows, columns)


def stays(tile: np.ndarray) -> bool:
    """Whether a tile is kept: its mask has several colours, none of them rare; unknown is a colour too."""
    counts = np.unique(tile, return_counts=True)[1]
    return len(counts) > 1 and counts.min() / tile.size > RAREST


def _write_jpeg(pixels: np.ndarray, path: Path) -> None:
    """Write RGB uint8 [H,W,3] by OpenCV in its default quality, as published."""
    path.write_bytes(cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())
