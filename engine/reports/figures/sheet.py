"""Rows of captioned pictures on a page, in columns of one width, with a legend below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fewseg.engine.reports.figures.style import (
    FONT_SIZE,
    PAGE_WIDTH,
    empty_figure,
    heat_colours,
    paper_style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
"""Columns of a figure over the whole page; a figure with fewer of them is narrower."""

_GAP = 0.06
_TILE = (PAGE_WIDTH - (COLUMNS - 1) * _GAP) / COLUMNS
"""Width of a picture in inches."""
_LINE = 1.25 * FONT_SIZE / 72
_TALLEST = 1.6
"""Largest height of a picture as a multiple of its column's width; taller ones are made narrower."""
_SWATCH = 0.28
"""Width of the colours in a legend, in inches."""
_INK = "#222222"

Legend = Mapping[str, tuple[int, int, int]]
"""Name of a label -> its RGB colour of 0..255."""


@dataclass(frozen=True)
class Tile:
    """A picture with its caption.

    Attributes:
        caption: text above it.
        image: RGB uint8 [H,W,3].
        heat: whether it shows a heat map, which the legend then explains.
        legend: what the colours of its labels mean.
    """

    caption: str
    image: np.ndarray
    heat: bool = False
    legend: Legend = field(default_factory=dict)


def sheet(rows: Sequence[Sequence[Tile]]) -> Figure:
    """Lay out rows of at most ``COLUMNS`` pictures.

    Captions are wrapped to the width of their column and aligned above the pictures of a row.
    """
    columns = max(len(row) for row in rows)
    width = columns * _TILE + (columns - 1) * _GAP
    with paper_style():
        captions = [[wrapped(tile.caption, _TILE) for tile in row] for row in rows]
        legend = _legend_lines([tile for row in rows for tile in row], width)
        heads = [_LINE * max(len(caption) for caption in row) + 0.03 for row in captions]
        bodies = [_TILE * max(_ratio(tile) for tile in row) for row in rows]
        foot = (_LINE + 0.03) * len(legend) + (_GAP if legend else 0)
        height = sum(heads) + sum(bodies) + _GAP * (len(rows) - 1) + foot
        canvas = _Canvas(empty_figure(width, height), width, height)
        top = height
        for row, lines, head, body in zip(rows, captions, heads, bodies, strict=True):
            top -= head
            for column, (tile, caption) in enumerate(zip(row, lines, strict=True)):
                left = column * (_TILE + _GAP)
                canvas.text(left, top + 0.03, "\n".join(caption), "bottom")
                canvas.picture(tile.image, left, top)
            top -= body + _GAP
        top += _GAP
        for number, line in enumerate(legend):
            canvas.legend(line, top - _GAP - (number + 0.5) * (_LINE + 0.03))
    return canvas.figure


def wrapped(text: str, width: float) -> list[str]:
    """Break a text into lines of at most ``width`` inches; a word that is too long is cut."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, width))
    return lines or [""]


def text_width(text: str) -> float:
    """Return the width of a text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    return TextToPath().get_text_width_height_descent(text, FontProperties(size=FONT_SIZE), False)[0] / 72


def _cut(word: str, width: float) -> str:
    shorter = word
    while len(shorter) > 1 and text_width(shorter) > width:
        shorter = f"{shorter.removesuffix('…')[:-1]}…"
    return shorter


def _ratio(tile: Tile) -> float:
    return min(_TALLEST, tile.image.shape[0] / tile.image.shape[1])


Entry = tuple[str, np.ndarray]
"""A name, and the colours before it, RGB uint8 [1,n,3]."""


def _legend_lines(tiles: Sequence[Tile], width: float) -> list[list[Entry]]:
    """Distribute the entries of the legend over lines of at most ``width`` inches."""
    entries: dict[str, np.ndarray] = {}
    if any(tile.heat for tile in tiles):
        ramp = heat_colours(np.linspace(0, 1, 64))[None].astype(np.uint8)
        entries["heat maps: lowest to highest value in brackets"] = ramp
    for tile in tiles:
        for name, colour in tile.legend.items():
            swatch = np.full((1, 1, 3), colour, np.uint8)
            known = np.array_equal(entries.setdefault(name, swatch), swatch)
            entries |= {} if known else {f"{name} ({tile.caption})": swatch}
    lines: list[list[Entry]] = []
    left = width + 1  # so that the first entry begins a line
    for name, colours in entries.items():
        name = _cut(name, width - _SWATCH - _GAP)
        left += _entry_width(name)
        if left > width:
            lines.append([])
            left = _entry_width(name)
        lines[-1].append((name, colours))
    return lines


def _entry_width(name: str) -> float:
    return _SWATCH + text_width(name) + 3 * _GAP


@dataclass(frozen=True)
class _Canvas:
    """A figure that is drawn on in inches from its lower left corner."""

    figure: Figure
    width: float
    height: float

    def text(self, left: float, bottom: float, text: str, align: str) -> None:
        self.figure.text(
            left / self.width,
            bottom / self.height,
            text,
            ha="left",
            va=align,
            size=FONT_SIZE,
            color=_INK,
            linespacing=1.1,
            parse_math=False,
        )

    def picture(self, image: np.ndarray, left: float, top: float) -> None:
        """Draw an image as wide as a column, or narrower where it is too tall."""
        tall, wide = image.shape[:2]
        width = min(_TILE, _TALLEST * _TILE * wide / tall)
        self._image(image, left, top - width * tall / wide, width, width * tall / wide)

    def legend(self, line: Sequence[Entry], middle: float) -> None:
        left = 0.0
        for name, colours in line:
            self._image(colours, left, middle - 0.35 * _LINE, _SWATCH, 0.7 * _LINE)
            self.text(left + _SWATCH + _GAP, middle, name, "center")
            left += _entry_width(name)

    def _image(self, image: np.ndarray, left: float, bottom: float, width: float, height: float) -> None:
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place)
        axes.imshow(image, aspect="auto", interpolation="antialiased")
        axes.set_axis_off()
