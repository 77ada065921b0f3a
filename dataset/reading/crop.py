"""The square crop of a training image and its masks, drawn so that it shows a given class."""

from __future__ import annotations

import random
from dataclasses import dataclass

import cv2
import numpy as np

from fewseg.dataset.labels import VOID

CROP_KEEPS = 0.85
CROP_REDRAWS = 31


@dataclass(frozen=True)
class Crop:
    """A square window of the canvas, which is the image padded on all sides to at least the window's size.

    Attributes:
        size: side of the window, in pixels.
        above, left: padding above and to the left of the image.
        top, start: first row and first column of the window on the canvas.
    """

    size: int
    above: int
    left: int
    top: int
    start: int

    def window(self, height: int, width: int) -> tuple[slice, slice, slice, slice]:
        """Return rows and columns of the image that the window shows, then their rows and columns in it."""
        parts = []
        for first, before, length in ((self.top, self.above, height), (self.start, self.left, width)):
            begin, end = max(first - before, 0), min(first - before + self.size, length)
            parts.append((slice(begin, end), slice(begin + before - first, end + before - first)))
        (rows, to_rows), (columns, to_columns) = parts
        return rows, columns, to_rows, to_columns

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Cut the window out of a mask; padding becomes void."""
        rows, columns, to_rows, to_columns = self.window(*mask.shape)
        out = np.full((self.size, self.size), VOID, mask.dtype)
        out[to_rows, to_columns] = mask[rows, columns]
        return out


def draw_crop(mask: np.ndarray, size: int, keep: int, rng: random.Random) -> Crop:
    """Draw windows until one holds 85 % of the pixels labelled ``keep``; after 31 redraws take the last."""
    height, width = mask.shape
    pad_height, pad_width = max(size - height, 0), max(size - width, 0)
    above, left = pad_height // 2, pad_width // 2
    integral = cv2.integral((mask == keep).view(np.uint8))
    for _ in range(1 + CROP_REDRAWS):
        top = rng.randint(0, height + pad_height - size)
        start = rng.randint(0, width + pad_width - size)
        crop = Crop(size, above, left, top, start)
        rows, columns, *_ = crop.window(height, width)
        kept = (
            integral[rows.stop, columns.stop]
            - integral[rows.start, columns.stop]
            - integral[rows.stop, columns.start]
            + integral[rows.start, columns.start]
        )
        if kept >= CROP_KEEPS * integral[-1, -1]:
            break
    return crop
