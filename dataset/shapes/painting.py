"""What the pictures of all drawn data sets consist of: backgrounds, objects, soft edges and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewseg.dataset.shapes.forms import (
    FINE,
    WHOLE,
    Draws,
    Integers,
    inside_cut_out,
    inside_form,
    radius_of,
    second_tone,
    turn,
)


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


def background(draws: Draws, size: int) -> tuple[Integers, Integers]:
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
class Placed:
    """The position of an object: its pixels, and its centre in 1/16 pixel."""

    rows: Integers
    columns: Integers
    centre: tuple[int, int]


def place(draws: Draws, form: str, area: int, size: int, cut_out: str = WHOLE) -> Placed:
    """Return the pixels of an object with a random centre, rotation and stretch.

    Args:
        draws: the random numbers of the picture.
        form: a form of ``forms.py``.
        area: pixels of the form without cut-out.
        size: side of the picture in pixels.
        cut_out: one of ``CUT_OUTS``, the part of the form that shows the background.
    """
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
    inside = inside_form(form, u, v, radius, stretch) & ~inside_cut_out(cut_out, u, v, radius)
    rows, columns = np.nonzero(inside)
    return Placed(rows + top, columns + left, (centre_y, centre_x))


def paint(draws: Draws, picture: Integers, placed: Placed, texture: str, ground: Integers) -> None:
    """Paint an object in two random colours, the first of which differs from ``ground``, the background's."""
    first = _colour(draws)
    while np.abs(first - ground).max() < 45:
        first = _colour(draws)
    second = _colour(draws)
    while np.abs(first - second).max() < 70:
        second = _colour(draws)
    y, x = placed.rows * FINE - placed.centre[0], placed.columns * FINE - placed.centre[1]
    tone = second_tone(draws, texture, x, y, len(picture))
    picture[placed.rows, placed.columns] = np.where(tone[:, None], second, first)


def finish(draws: Draws, picture: Integers) -> NDArray[np.uint8]:
    """Add soft edges, a brightness gradient and noise."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    soft = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    soft = (soft[:, :-2] + 2 * soft[:, 1:-1] + soft[:, 2:]) >> 4
    size = len(picture)
    down, right = np.arange(size)[:, None, None] - size // 2, np.arange(size)[None, :, None] - size // 2
    light = 1000 + (down * draws.between(-350, 350) + right * draws.between(-350, 350)) // size
    noise = draws.grid(picture.shape, -4, 4)
    return np.clip(soft * light // 1000 + noise, 0, 255).astype(np.uint8)
