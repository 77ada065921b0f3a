"""Weaker annotations made from masks: what a support looks like when nobody drew its outline."""

from __future__ import annotations

import cv2
import numpy as np

from util.errors import DataError

ANNOTATIONS = ("mask", "bbox")


def annotate(mask: np.ndarray, annotation: str) -> np.ndarray:
    """Replace the foreground of a support mask by a weaker annotation of it.

    Args:
        mask: uint8 [H,W] of 0, 1 and 255.
        annotation: ``mask`` leaves it alone; ``bbox`` gives the filled bounding boxes.

    Raises:
        DataError: an unknown annotation.
    """
    if annotation == "mask":
        return mask
    if annotation == "bbox":
        return boxes(mask)
    raise DataError(f"ann_type {annotation}: known are {', '.join(ANNOTATIONS)}")


def boxes(mask: np.ndarray) -> np.ndarray:
    """Fill the bounding box of every connected part of the foreground; void pixels stay void.

    As published, a box reaches one pixel beyond its part to the right and to the bottom.
    """
    out = np.zeros_like(mask)
    _, _, parts, _ = cv2.connectedComponentsWithStats((mask == 1).view(np.uint8))
    for left, top, width, height, _ in parts[1:]:
        out[top : top + height + 1, left : left + width + 1] = 1
    out[mask == 255] = 255
    return out
