"""Weak annotations made from masks: bounding boxes and scribbles."""

from __future__ import annotations

import random

import cv2
import numpy as np

from fewseg.dataset.episodes.sampling import generator
from fewseg.dataset.weak.scribble import stroke, strokes
from fewseg.model.contract import UNLABELLED
from fewseg.util.errors import DataError

ANNOTATIONS = ("mask", "bbox", "largest_bbox", "scribble")
BY_OBJECT = "largest_bbox"
"""The annotation that tells objects of one class apart."""


def annotate(
    mask: np.ndarray,
    annotation: str,
    *,
    seed: int = 0,
    name: str = "support",
    instances: np.ndarray | None = None,
) -> np.ndarray:
    """Replace the foreground of a support mask by a weaker annotation of it.

    Args:
        mask: uint8 [H,W] of 0, 1 and 255.
        annotation: ``mask`` keeps the mask; ``bbox`` gives the filled bounding boxes, ``largest_bbox`` the
            box of the largest object, as in PANet, ``scribble`` one stroke in one object and one in the
            background.
        seed, name: seed of a scribble and name of the image, which determine its random draws.
        instances: see ``largest_box``.

    Raises:
        DataError: the annotation is unknown, or the mask has no foreground.
    """
    if annotation not in ANNOTATIONS:
        raise DataError(f"ann_type {annotation}: known are {', '.join(ANNOTATIONS)}")
    if annotation == "mask":
        return mask
    if not (mask == 1).any():
        raise DataError(
            f"{name}: the mask shows nothing to draw a {annotation} of; take the support off the list"
        )
    if annotation == "bbox":
        return boxes(mask)
    if annotation == BY_OBJECT:
        return largest_box(mask, instances)
    return scribble(mask, generator("scribble", seed, name))


def scribble(mask: np.ndarray, rng: random.Random) -> np.ndarray:
    """Draw a stroke into one connected part of the foreground and one into the background.

    Args:
        mask: uint8 [H,W] of 0, 1 and 255, with foreground.
        rng: random generator that chooses the part.

    Returns:
        uint8 [H,W]: 1 and 0 on the strokes, 254 elsewhere.
    """
    out = np.full(mask.shape, UNLABELLED, np.uint8)
    foreground, background = ((mask == label).astype(np.uint8) for label in (1, 0))
    if background.any():
        out[(stroke(background) & background) == 1] = 0
    out[(rng.choice(strokes(foreground)) & foreground) == 1] = 1
    return out


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


def largest_box(mask: np.ndarray, instances: np.ndarray | None = None) -> np.ndarray:
    """Fill the tight bounding box of the largest object; the other objects' boxes are unlabelled.

    Args:
        mask: uint8 [H,W] of 0, 1 and 255.
        instances: id of the object at every pixel, 0 none, [H,W]. Where it is None, or shows no object in
            the mask, every connected part of the mask is an object.

    Returns:
        uint8 [H,W]: 1 in the box, 254 in the other boxes, 0 outside all boxes. All 0 for an empty mask.
    """
    inside = mask == 1
    if instances is None or not instances[inside].any():
        instances = cv2.connectedComponents(inside.view(np.uint8))[1]
    ids, areas = np.unique(instances[inside & (instances != 0)], return_counts=True)
    out = np.zeros(mask.shape, np.uint8)
    for value in ids:
        out[_box(inside & (instances == value))] = UNLABELLED
    if ids.size:  # the first one on ties
        out[_box(inside & (instances == ids[areas.argmax()]))] = 1
    return out


def _box(inside: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
