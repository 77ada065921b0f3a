"""One picture of the Shapes data set: objects of a form and a texture on a cluttered background.

A class is a form with a texture ("striped star"); colour, contrast, size, rotation and position are random
and do not depend on the class. Fold f holds each of the five forms once, form i with texture (i + f) mod 4,
so every novel class is a new combination of a form and a texture, each of which occurs in base classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fewseg.dataset.labels import FOLDS, VOID
from fewseg.dataset.shapes.forms import (
    FINE,
    FORMS,
    Draws,
    Integers,
    form_and_texture,
    inside_form,
    radius_of,
    second_tone,
    turn,
)

_FOLD_PAIRS = tuple(combinations(range(FOLDS), 2))
_OBJECT_COUNTS = (2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 6, 6)


def _clouds(draws: Draws, size: int, cells: int, strength: int) -> Integers:
    """Return smooth noise [size,size,3]: random values at the corners of a grid, interpolated."""
    corners = draws.grid((cells + 2, cells + 2, 3), -strength, strength)
    position = np.arange(size) * cells * 64 // size
    cell, part = position // 64, position % 64
    down = part[:, None, None]
    rows = corners[cell] * (64 - down) + corners[cell + 1] * down
    right = part[None, :, None]
    return np.right_shift(rows[:, cell] * (64 - right) + rows[:, cell + 1] * right, 12)


def _colour(draws: Draws) -> Integers:
    return draws.grid((3,), 20, 235)


def _stroke(draws: Draws, picture: Integers) -> None:
    """Draw a thin line into the background, of a colour similar to that below it."""
    size = len(picture)
    y, x = np.ogrid[:size, :size]
    u, v = turn(x - draws.between(0, size - 1), y - draws.between(0, size - 1), draws.between(0, 359))
    bend = draws.between(-3, 3)
    v = v + bend * u * u // (2 * size)
    on_line = (np.abs(u) <= draws.between(size // 10, size // 3)) & (np.abs(v) <= draws.between(0, 1))
    picture[on_line] += draws.grid((3,), -70, 70)


def _background(draws: Draws, size: int) -> tuple[Integers, Integers]:
    """Return a background with noise and lines [size,size,3], and its main colour."""
    colour = _colour(draws)
    picture = (
        colour
        + _clouds(draws, size, 3, draws.between(20, 50))
        + _clouds(draws, size, 14, draws.between(5, 30))
    )
    for _ in range(draws.between(3, 10)):
        _stroke(draws, picture)
    return picture, colour


@dataclass(frozen=True)
class _Placed:
    """The position of an object: its pixels, and its centre in 1/16 pixel."""

    rows: Integers
    columns: Integers
    centre: tuple[int, int]


def _place(draws: Draws, form: str, area: int, size: int) -> _Placed:
    radius = radius_of(form, area)
    margin = min(radius * 3 // 4, size * FINE // 2)
    centre_y = draws.between(margin, size * FINE - margin)
    centre_x = draws.between(margin, size * FINE - margin)
    reach = radius * 5 // 4  # a little more than the stretched form, in place of the whole picture
    top, left = max(0, (centre_y - reach) // FINE), max(0, (centre_x - reach) // FINE)
    bottom, right = min(size, (centre_y + reach) // FINE), min(size, (centre_x + reach) // FINE)
    y, x = np.ogrid[top:bottom, left:right]
    u, v = turn(x * FINE - centre_x, y * FINE - centre_y, draws.between(0, 359))
    stretch = draws.between(88, 114)
    rows, columns = np.nonzero(inside_form(form, u, v, radius, stretch))
    return _Placed(rows + top, columns + left, (centre_y, centre_x))


def _paint(draws: Draws, picture: Integers, placed: _Placed, texture: str, ground: Integers) -> None:
    first = _colour(draws)
    while np.abs(first - ground).max() < 45:
        first = _colour(draws)
    second = _colour(draws)
    while np.abs(first - second).max() < 70:
        second = _colour(draws)
    y, x = placed.rows * FINE - placed.centre[0], placed.columns * FINE - placed.centre[1]
    tone = second_tone(draws, texture, x, y, len(picture))
    picture[placed.rows, placed.columns] = np.where(tone[:, None], second, first)


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


def _finish(draws: Draws, picture: Integers) -> NDArray[np.uint8]:
    """Add soft edges, a brightness gradient and noise."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    soft = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    soft = (soft[:, :-2] + 2 * soft[:, 1:-1] + soft[:, 2:]) >> 4
    size = len(picture)
    down, right = np.arange(size)[:, None, None] - size // 2, np.arange(size)[None, :, None] - size // 2
    light = 1000 + (down * draws.between(-350, 350) + right * draws.between(-350, 350)) // size
    noise = draws.grid(picture.shape, -4, 4)
    return np.clip(soft * light // 1000 + noise, 0, 255).astype(np.uint8)


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
    picture, ground = _background(draws, size)
    objects = np.zeros((size, size), np.int64)
    budget = size * size * 48 // (100 * len(class_ids))
    full_area: list[int] = []
    for position, class_id in enumerate(class_ids, start=1):
        form, texture = form_and_texture(class_id)
        area = min(budget * draws.between(60, 140) // 100, size * size * 15 // 100)
        placed = _place(draws, form, area, size)
        while not _leaves_rest_visible(objects, placed, full_area):
            area = area * 97 // 100
            placed = _place(draws, form, area, size)
        _paint(draws, picture, placed, texture, ground)
        objects[placed.rows, placed.columns] = position
        full_area.append(len(placed.rows))
    return _finish(draws, picture), _label(objects, class_ids)


def _leaves_rest_visible(objects: Integers, placed: _Placed, full_area: list[int]) -> bool:
    """Whether at least two thirds of each object below stay visible."""
    below = len(full_area) + 1
    left = np.bincount(objects.ravel(), minlength=below)
    left -= np.bincount(objects[placed.rows, placed.columns], minlength=below)
    return all(3 * visible >= 2 * full for visible, full in zip(left[1:].tolist(), full_area, strict=True))
