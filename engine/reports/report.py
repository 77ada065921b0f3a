"""The files that a user reads after a test: tables, panels, and a page that shows both.

They show all results of a folder, with one set of tables for each group of comparable results.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from fewseg.engine.reports.page import html_page
from fewseg.util.errors import ResultError
from fewseg.util.files import write_bytes, write_text
from fewseg.util.results.formats import FORMATS, to_terminal
from fewseg.util.results.result import Result
from fewseg.util.results.rounds_table import build_rounds_table
from fewseg.util.results.tables import Table, build_class_table, build_table

TABLES = {
    "mIoU": "final prediction",
    "mIoU_meta": "meta-learner alone",
    "pIoU": "all novel classes as one",
    "mIoU_base": "base learner on base classes",
    "mIoU_n": "generalised: novel classes",
    "mIoU_b": "generalised: base classes",
    "mIoU_t": "generalised: all classes",
}
"""Metric -> title of its table."""

ROUNDS = "rounds"
"""Name of the table of the rounds of an adaptation."""

_TITLES = {**TABLES, ROUNDS: "adaptation: every round"}

CLASSES = "classes"
"""File name of the table of all classes, without suffix."""


@dataclass(frozen=True)
class Section:
    """Comparable results.

    Attributes:
        results: file -> result of a trained model.
        baselines: results of the baselines on the same episodes.
        pictures: file of a result -> its panels.
        figures: file of a result -> the page of its figures, where there is one.
    """

    results: Mapping[Path, Result]
    baselines: Sequence[Result]
    pictures: Mapping[Path, Sequence[Path]]
    figures: Mapping[Path, Path] = field(default_factory=dict)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """One table per metric, of the results and baselines that have the metric, and one of the rounds."""
        tables = {}
        for metric in TABLES:
            if any(metric in result.mean for result in self.results.values()):
                rows = [row for row in (*self.results.values(), *self.baselines) if metric in row.mean]
                tables[metric] = build_table(rows, metric, "FB-IoU" if metric in ("mIoU", "mIoU_t") else None)
        adapted = [result for result in self.results.values() if result.rounds]
        return tables | ({ROUNDS: build_rounds_table(adapted)} if adapted else {})


def write_tables(folder: Path, sections: Mapping[str, Section]) -> None:
    """Write every table of every section in every format, and remove those of sections that are gone."""
    for name, section in sections.items():
        classes = build_class_table([*section.results.values(), *section.baselines])
        for table_name, table in {**section.tables, CLASSES: classes}.items():
            for suffix, write in FORMATS.values():
                write_text(folder / name / f"{table_name}.{suffix}", write(table), ResultError)
    for other in (
        folder,
        *(path for path in folder.iterdir() if path.is_dir() and path.name not in sections),
    ):
        for table_name in (*_TITLES, CLASSES):
            for suffix, _ in FORMATS.values():
                (other / f"{table_name}.{suffix}").unlink(missing_ok=True)
        if other != folder and not any(other.iterdir()):
            other.rmdir()


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> list[Path]:
    """Write RGB pictures as PNG and return their paths."""
    return [write_picture(folder / f"{name}.png", picture) for name, picture in sorted(pictures.items())]


def write_picture(path: Path, picture: np.ndarray) -> Path:
    """Write an RGB or a grey picture as PNG."""
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    _, encoded = cv2.imencode(".png", stored)
    write_bytes(path, encoded.tobytes(), ResultError)
    return path


def write_report(path: Path, sections: Mapping[str, Section]) -> Path:
    """Write a page with the tables, the IoU of every class and the panels, and return its path."""
    title = "; ".join(dict.fromkeys(_heading(section) for section in sections.values()))
    body = "".join(_section(name, section, path) for name, section in sections.items())
    write_text(path, html_page(title, body), ResultError)
    return path


def _section(name: str, section: Section, page: Path) -> str:
    parts = [f"<h1>{html.escape(_heading(section))}</h1><p>{html.escape(name)}</p>"]
    parts += [
        f"<h2>{html.escape(_TITLES[name])}</h2>{_table(to_terminal(table))}"
        for name, table in section.tables.items()
    ]
    parts.append("<h2>classes</h2>")
    parts += [_classes(result) for result in section.results.values()]
    for file, figures in section.figures.items():
        title, link = html.escape(title_of(section.results[file])), html.escape(_relative(figures, page))
        parts.append(f'<p><a href="{link}">Figures of {title}</a></p>')
    for file, pictures in section.pictures.items():
        if pictures:
            parts.append(f"<h2>episodes of {html.escape(title_of(section.results[file]))}</h2>")
        parts += [f'<img src="{html.escape(_relative(picture, page))}" alt="">' for picture in pictures]
    return "".join(parts)


def _heading(section: Section) -> str:
    methods = ", ".join(dict.fromkeys(result.method for result in section.results.values()))
    data_sets = ", ".join(dict.fromkeys(result.data_set for result in section.results.values()))
    trainings = ", ".join(
        dict.fromkeys(result.trained_on or data_sets for result in section.results.values())
    )
    return f"{methods} on {data_sets}" + (f", trained on {trainings}" if trainings != data_sets else "")


def title_of(result: Result) -> str:
    """Return what a result is called in a page."""
    variant = f" {result.variant}" if result.variant else ""
    trained = f", trained on {result.trained_on}" if result.trained_on else ""
    return f"{result.method}{variant}{trained}, fold {result.fold}, {result.shot}-shot"


def _table(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def _classes(result: Result) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in result.class_iou)
    cells = "".join(
        f"<td>{'-' if value is None else f'{100 * value:.2f}'}</td>" for value in result.class_iou.values()
    )
    title = html.escape(title_of(result))
    note = f"<p>{title}: {result.tested_in_words}</p>" if result.tested_in_words else ""
    return f"<table><tr><th></th>{head}</tr><tr><td>{title}</td>{cells}</tr></table>{note}"


def _relative(picture: Path, page: Path) -> str:
    return picture.relative_to(page.parent).as_posix()
