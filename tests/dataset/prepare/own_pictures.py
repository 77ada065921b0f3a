"""Pictures and masks of one's own, drawn in several layouts."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run_folder import prepare_folder

NAMES = ("hat", "shoe", "bag")
SIZE = (20, 30)


def mask_of(number: int) -> np.ndarray:
    """Two of the three classes in every picture, the second inside the first."""
    mask = np.zeros(SIZE, np.uint8)
    mask[2:18, 2:20] = number % 3 + 1
    mask[5:9, 5:9] = (number + 1) % 3 + 1
    return mask


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path, **options)


def photograph(number: int) -> np.ndarray:
    return np.full((*SIZE, 3), 10 * number + 5, np.uint8)


def draw(folder, layout, count=12):
    """Draw pictures in one of the layouts."""
    for number in range(count):
        mask, name = mask_of(number), f"street {number}"
        if layout == "side by side":
            save(folder / f"{name}.jpg", photograph(number))
            save(folder / f"{name}.png", mask)
            continue
        save(folder / f"images/{name}.{'png' if layout == 'index' else 'bmp'}", photograph(number))
        if layout == "index":
            save(folder / f"masks/{name}.png", mask)
            continue
        for class_id in set(mask.flat) - {0}:
            inner = (
                f"{NAMES[class_id - 1]}/{name}"
                if layout == "class folders"
                else f"{name}/{NAMES[class_id - 1]}"
            )
            save(folder / f"masks/{inner}.png", (mask == class_id).astype(np.uint8) * 255)
    return folder


def prepare(source, root, **options):
    return prepare_folder(Options(root, workers=1), source, **options)
