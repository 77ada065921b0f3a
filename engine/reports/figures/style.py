"""The common form of all figures: widths, fonts and colours that suit a paper, and their files.

Matplotlib is imported when a figure is made, and only its parts without a global state are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewseg.util.errors import ResultError
from fewseg.util.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_WIDTH = 7.0
"""Width of a figure over the whole page of a paper, in inches."""

COLUMN_WIDTH = 3.4
"""Width of a figure in one of two columns, in inches."""

DPI = 300

FONT_SIZE = 6.5
"""Size of all text, in points."""

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # it comes with Matplotlib
    "font.size": FONT_SIZE,
    "axes.linewidth": 0.5,
    "pdf.fonttype": 42,  # publishers refuse Matplotlib's default, Type 3
    "savefig.dpi": DPI,
}


@contextmanager
def paper_style() -> Iterator[None]:
    """A context in which figures are made and written in the common form."""
    from matplotlib import rc_context

    with rc_context(_SETTINGS):
        yield


def empty_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches, without axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def write_figure(path: Path, figure: Figure) -> list[Path]:
    """Write a figure as ``path.png`` of 300 dpi and as ``path.pdf``, and return both paths.

    Raises:
        ResultError: a file cannot be written.
    """
    written = []
    for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        buffer = BytesIO()
        with paper_style():
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_bytes(written[-1], buffer.getvalue(), ResultError)
    return written


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Return the colours of values from 0 to 1, RGB float [...,3] of 0..255."""
    from matplotlib import colormaps

    return 255 * colormaps["viridis"](np.clip(values, 0, 1))[..., :3]


def label_colours(count: int) -> list[tuple[int, int, int]]:
    """Return distinct RGB colours of 0..255 for ``count`` labels; they recur after 20."""
    from matplotlib import colormaps

    palette = colormaps["tab10" if count <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    rounded = [tuple(round(255 * part) for part in colour) for colour in palette]
    return [rounded[index % len(rounded)] for index in range(count)]
