"""One picture of the Shapes data set: objects of a form and a texture on a cluttered background.

A class is a form with a texture ("striped star"); colour, contrast, size, rotation and position are random
and do not depend on the class. Fold f holds each of the five forms once, form i with texture (i + f) mod 4,
so every novel class is a new combination of a form and a texture, each of which occurs in base classes.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fewseg.dataset.labels import FOLDS, VOID
from fewseg.dataset.shapes.forms import FORMS, Draws, Integers, form_and_texture
from fewseg.dataset.shapes.painting import Placed, background, finish, paint, place

_FOLD_PAIRS = tuple(combinations(range(FOLDS), 2))
_OBJECT_COUNTS = (2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 6, 6)


def _choose_classes(draws: Draws, index: int) -> list[int]:
    """Return the class ids of the objects, from back to front.

    The classes of a picture come from two folds. So novel classes always occur together with base classes,
    and a protocol that removes the training pictures with novel classes still keeps half of them.
    """
    folds = _FOLD_PAIRS[index // 4 % len(_FOLD_PAIRS)]
    pool = [fold * len(FORMS) + i + 1 for fold in folds for i in range(len(FORMS))]
    # The first class cycles through all classes, so that small data sets have every class.
    chosen = [pool.pop((3 * (index // 24) + index % 4) % len(pool))]
    count = _OBJECT_COUNTS[draws.between(0, len(_OBJECT_COUNTS) - 1)]
    while len(chosen) < count:
        repeat = len(chosen) >= 2 and draws.between(0, 9) == 0
        source = chosen if repeat else pool
        class_id = source[draws.between(0, len(source) - 1)]
        if not repeat:
            pool.remove(class_id)
        chosen.append(class_id)
    for i in range(len(chosen) - 1, 0, -1):
        j = draws.between(0, i)
        chosen[i], chosen[j] = chosen[j], chosen[i]
    return chosen


def _label(objects: Integers, class_ids: list[int]) -> NDArray[np.uint8]:
    """Return class ids, with void on both sides of every border between objects or object and background."""
    label = np.array([0, *class_ids], np.uint8)[objects]
    down, right = objects[1:] != objects[:-1], objects[:, 1:] != objects[:, :-1]
    label[1:][down] = label[:-1][down] = VOID
    label[:, 1:][right] = label[:, :-1][right] = VOID
    return label


def draw_scene(seed: int, index: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return RGB picture [size,size,3] and label [size,size] at ``index`` in the data set of this seed."""
    draws = Draws(seed, index)
    class_ids = _choose_classes(draws, index)
    picture, ground = background(draws, size)
    objects = np.zeros((size, size), np.int64)
    budget = size * size * 48 // (100 * len(class_ids))
    full_area: list[int] = []
    for position, class_id in enumerate(class_ids, start=1):
        form, texture = form_and_texture(class_id)
        area = min(budget * draws.between(60, 140) // 100, size * size * 15 // 100)
        placed = place(draws, form, area, size)
        while not _leaves_rest_visible(objects, placed, full_area):
            area = area * 97 // 100
            placed = place(draws, form, area, size)
        paint(draws, picture, placed, texture, ground)
        objects[placed.rows, placed.columns] = position
        full_area.append(len(placed.rows))
    return finish(draws, picture), _label(objects, class_ids)


def _leaves_rest_visible(objects: Integers, placed: Placed, full_area: list[int]) -> bool:
    """Whether at least two thirds of each object below stay visible."""
    below = len(full_area) + 1
    left = np.bincount(objects.ravel(), minlength=below)
    left -= np.bincount(objects[placed.rows, placed.columns], minlength=below)
    return all(3 * visible >= 2 * full for visible, full in zip(left[1:].tolist(), full_area, strict=True))
