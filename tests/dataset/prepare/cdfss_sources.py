"""Draw small copies of the data sets of CD-FSS, in the layouts of archives and of the published loaders."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "agriculture": (255, 255, 0),
    "urban": (0, 255, 255),
    "rangeland": (255, 0, 255),
    "forest": (0, 255, 0),
    "water": (0, 0, 255),
    "barren": (255, 255, 255),
    "unknown": (0, 0, 0),
}
SIDE = 10
"""Side of a tile of DeepGlobe."""


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def photograph(seed: int, side: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def object_mask(seed: int, side: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[seed % 5 : side // 2, 2 : side - 3] = 255
    return mask


def land_cover(folder: Path) -> Path:
    """Draw one whole image: a tile for each pair of neighbouring classes, all other tiles of one colour."""
    mask = np.zeros((6 * SIDE, 6 * SIDE, 3), np.uint8)
    mask[:] = COLOURS["forest"]
    names = list(COLOURS)
    for column, (first, second) in enumerate(pairwise(names[:6])):
        left = column * SIDE
        mask[:SIDE, left : left + SIDE] = COLOURS[first]
        mask[4:SIDE, left : left + SIDE] = COLOURS[second]
    mask[SIDE, 0:4] = COLOURS["water"]  # 4 %: too rare
    mask[SIDE, SIDE : SIDE + 5] = COLOURS["unknown"]  # 5 %: no class, but a colour
    save(folder / "119_mask.png", mask)
    save(folder / "119_sat.jpg", photograph(0, 6 * SIDE))
    save(folder / "200_sat.jpg", photograph(1, 6 * SIDE))  # of the validation set, which has no masks
    return folder


def tiles(folder: Path, images: int = 3, side: int = 40) -> Path:
    """Draw the prepared layout of DeepGlobe."""
    for number in range(1, 7):
        for i in range(images):
            base, name = folder / str(number) / "test", f"{i}_sat_0{i}"
            save(base / "origin" / f"{name}.jpg", photograph(10 * number + i, side))
            save(base / "groundtruth" / f"{name}.png", object_mask(number + i, side))
    return folder


def lesions(folder: Path, classes: dict[str, list[str]], nested: bool, side: int = 24) -> Path:
    """Draw the two folders of ISIC 2018; ``nested`` puts pictures into the folder of their class."""
    for name, pictures in classes.items():
        for i, picture in enumerate(pictures):
            inner = folder / "ISIC2018_Task1-2_Training_Input" / (name if nested else "")
            save(inner / f"{picture}.jpg", photograph(i, side))
            truth = folder / "ISIC2018_Task1_Training_GroundTruth"
            save(truth / f"{picture}_segmentation.png", object_mask(i, side))
    return folder


def lungs(folder: Path, images: int = 3, side: int = 24) -> Path:
    """Draw X-rays with masks of both lungs, and one X-ray without a mask."""
    for i in range(images):
        save(folder / "CXR_png" / f"CHNCXR_000{i}_1.png", photograph(i, side)[..., 0])
        save(folder / "masks" / f"CHNCXR_000{i}_1_mask.png", object_mask(i, side))
    save(folder / "CXR_png" / "CHNCXR_0099_0.png", photograph(99, side)[..., 0])
    return folder
