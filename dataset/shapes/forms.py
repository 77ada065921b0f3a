"""Forms, textures and cut-outs of the drawn data sets, in integer arithmetic only.

All random draws use the raw bits of PCG64, whose stream NumPy guarantees, and no value is a floating-point
number: the same seed gives the same pixels on every machine and with every library version.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fewseg.dataset.labels import FOLDS

Integers = NDArray[np.int64]
Inside = NDArray[np.bool_]

FINE = 16  # steps per pixel
_UNIT = 1024  # circumscribed radius of a form in its own coordinates
_TURN_BITS = 12  # scale of the sine and cosine tables
_COSINE = tuple(round(math.cos(math.radians(degree)) * (1 << _TURN_BITS)) for degree in range(360))
_SINE = tuple(round(math.sin(math.radians(degree)) * (1 << _TURN_BITS)) for degree in range(360))


class Draws:
    """Random integers that never change with the library version."""

    def __init__(self, seed: int, index: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, index]))

    def between(self, low: int, high: int) -> int:
        """Return an integer in low..high, both included."""
        return low + ((int(self._bits.random_raw()) >> 32) * (high - low + 1) >> 32)

    def grid(self, shape: tuple[int, ...], low: int, high: int) -> Integers:
        """Return an array of integers in low..high, both included."""
        raw = self._bits.random_raw(math.prod(shape)) >> np.uint64(40)
        return (low + (raw.astype(np.int64) * (high - low + 1) >> 24)).reshape(shape)


def turn(x: Integers, y: Integers, degree: int) -> tuple[Integers, Integers]:
    """Return coordinates along and across an axis that is rotated by whole degrees."""
    cosine, sine = _COSINE[degree % 360], _SINE[degree % 360]
    return (x * cosine + y * sine) >> _TURN_BITS, (y * cosine - x * sine) >> _TURN_BITS


# Each form maps coordinates, in units of 1/1024 of the circumscribed radius, to whether they are inside.


def _ring(u: Integers, v: Integers) -> Inside:
    distance = u * u + v * v
    return (distance <= _UNIT * _UNIT) & (distance >= 440 * 440)


def _star(u: Integers, v: Integers) -> Inside:
    inside = np.zeros(u.shape, bool)
    inner_u, inner_v = 414, 301  # a notch of the star: half the radius, 36 degrees off the tip
    for degree in range(0, 360, 72):
        along, across = turn(u, v, degree)
        across = np.abs(across)
        in_sector = across * inner_u <= (along + 4) * inner_v  # 4 more, against gaps from rounding
        inside |= in_sector & ((_UNIT - along) * inner_v >= across * (_UNIT - inner_u))
    return inside


def _cross(u: Integers, v: Integers) -> Inside:
    u, v = np.abs(u), np.abs(v)
    return (np.minimum(u, v) <= 310) & (np.maximum(u, v) <= 980)


def _triangle(u: Integers, v: Integers) -> Inside:
    return np.logical_and.reduce([turn(u, v, degree)[0] <= _UNIT // 2 for degree in (90, 210, 330)])


def _bar(u: Integers, v: Integers) -> Inside:
    return (np.abs(u) <= 960) & (np.abs(v) <= 380)


def _disc(u: Integers, v: Integers) -> Inside:
    return u * u + v * v <= _UNIT * _UNIT


def _square(u: Integers, v: Integers) -> Inside:
    return np.maximum(np.abs(u), np.abs(v)) <= 720


def _dome(u: Integers, v: Integers) -> Inside:
    return (v >= -370) & (u * u + (v + 370) * (v + 370) <= 930 * 930)


def _ell(u: Integers, v: Integers) -> Inside:
    return (np.maximum(np.abs(u), np.abs(v)) <= 700) & ((u <= 150) | (v >= -150))


def _tee(u: Integers, v: Integers) -> Inside:
    beam = (np.abs(u) <= 760) & (v >= -680) & (v <= -30)
    return beam | ((np.abs(u) <= 330) & (v >= -30) & (v <= 760))


def _zed(u: Integers, v: Integers) -> Inside:
    upper = (u >= -760) & (u <= 300) & (v >= -560) & (v <= 60)
    return upper | ((u >= -300) & (u <= 760) & (v >= -60) & (v <= 560))


# The second entry is the area in 1/1000 of the squared radius, so that all forms have the same mean area.
_FORM: dict[str, tuple[Callable[[Integers, Integers], Inside], int]] = {
    "ring": (_ring, 2560),
    "star": (_star, 1470),
    "cross": (_cross, 1950),
    "triangle": (_triangle, 1300),
    "bar": (_bar, 1390),
    "disc": (_disc, 3142),
    "square": (_square, 1978),
    "dome": (_dome, 1296),
    "ell": (_ell, 1581),
    "tee": (_tee, 1439),
    "zed": (_zed, 1185),
}


FORMS = ("ring", "star", "cross", "triangle", "bar")
"""The forms of Shapes."""

SOLID_FORMS = tuple(form for form in _FORM if form != "ring")
"""The forms that hold their centre, from which something can be cut out: those of Shapes-1000."""

TEXTURES = ("plain", "striped", "checked", "speckled")
"""The textures of Shapes. Shapes-1000 has a fifth, ``dotted``."""

WHOLE = "whole"
_CUT_OUT: dict[str, Callable[[Integers, Integers], Inside]] = {
    WHOLE: lambda u, v: np.zeros(u.shape, bool),
    "holed": lambda u, v: u * u + v * v <= 330 * 330,
    "split": lambda u, v: np.abs(v) <= 110,
    "quartered": lambda u, v: np.minimum(np.abs(u), np.abs(v)) <= 90,
    "notched": lambda u, v: (u >= 0) & (2 * np.abs(v) <= u),
}
CUT_OUTS = tuple(_CUT_OUT)
"""What is cut out of a form, so that the background shows there."""


def form_and_texture(class_id: int) -> tuple[str, str]:
    """Return form and texture of a class id in 1..20; fold f holds the ids 5f+1 .. 5f+5."""
    fold, i = divmod(class_id - 1, len(FORMS))
    return FORMS[i], TEXTURES[(i + fold) % len(TEXTURES)]


CLASS_NAMES = (
    "background",
    *(f"{texture} {form}" for form, texture in map(form_and_texture, range(1, FOLDS * len(FORMS) + 1))),
)
"""Name of every label value; the novel classes of fold f are 5f+1 .. 5f+5."""


def radius_of(form: str, area: int) -> int:
    """Return the circumscribed radius, in 1/16 pixel, of a form of ``area`` pixels."""
    return math.isqrt(area * 1000 * FINE * FINE // _FORM[form][1])


def inside_form(form: str, x: Integers, y: Integers, radius: int, stretch: int) -> Inside:
    """Return whether points are in a form; x, y (relative to its centre) and ``radius`` are in 1/16 pixel.

    ``stretch`` is a percentage: the form is divided by it along x and multiplied by it along y.
    """
    return _FORM[form][0](x * _UNIT * stretch // (radius * 100), y * _UNIT * 100 // (radius * stretch))


def inside_cut_out(cut_out: str, x: Integers, y: Integers, radius: int) -> Inside:
    """Return whether points are in a cut-out, in the coordinates of ``inside_form``."""
    return _CUT_OUT[cut_out](x * _UNIT // radius, y * _UNIT // radius)


def second_tone(draws: Draws, texture: str, x: Integers, y: Integers, size: int) -> Inside:
    """Return where a texture shows the second of its two tones; x and y are in 1/16 pixel."""
    u, v = turn(x, y, draws.between(0, 359))
    u, v = u + draws.between(0, 1 << 12), v + draws.between(0, 1 << 12)
    unit = size * FINE
    if texture == "plain":
        return np.zeros(x.shape, bool)
    if texture == "striped":
        period = draws.between(unit // 15, unit // 12)
        return u % period < period // 2
    if texture == "checked":
        cell = draws.between(unit // 22, unit // 17)
        return (u // cell + v // cell) % 2 == 0
    if texture == "dotted":
        period = draws.between(unit // 11, unit // 9)
        across, along = u % period - period // 2, v % period - period // 2
        return across * across + along * along <= period * period // 9
    cell = unit // 48
    table = draws.grid((64, 64), 0, 1) == 1
    return table[u // cell % 64, v // cell % 64]
