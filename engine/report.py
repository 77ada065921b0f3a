"""Files that a reader opens after a test: tables, panels, and one page that shows both."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from util.class_table import build_class_table
from util.errors import ResultError
from util.files import write_atomically, write_text
from util.results import Result, write_result
from util.tables import FORMATS, Table, build_table, to_terminal

TABLES = {
    "mIoU": "final prediction",
    "mIoU_meta": "meta-learner alone",
    "pIoU": "all novel classes as one",
    "mIoU_base": "base learner on base classes",
    "mIoU_n": "generalised: novel classes",
    "mIoU_b": "generalised: base classes",
    "mIoU_t": "generalised: all classes",
}
"""Metric -> what its table shows."""

CLASSES = "classes"
"""Name of the files with the table of single classes."""

_STYLE = """body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0 1.5em}
td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}
img{max-width:100%;display:block;margin:.8em 0;border:1px solid #ddd}"""


def tables_of(results: Sequence[Result], baselines: Sequence[Result]) -> dict[str, Table]:
    """Return a table per metric that all results have, the baselines below where they have it too."""
    tables = {}
    for metric in TABLES:
        if all(metric in result.mean for result in results):
            rows = [*results, *(baseline for baseline in baselines if metric in baseline.mean)]
            tables[metric] = build_table(rows, metric, "FB-IoU" if metric in ("mIoU", "mIoU_t") else None)
    return tables


def write_class_table(folder: Path, results: Sequence[Result]) -> None:
    """Write the IoU of every class in every format."""
    write_tables(folder, {CLASSES: build_class_table(results)})


def write_tables(folder: Path, tables: Mapping[str, Table]) -> None:
    """Write every table in every format."""
    for metric, table in tables.items():
        for suffix, write in FORMATS.values():
            write_text(folder / f"{metric}.{suffix}", write(table), ResultError)


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """Write one JSON file per run."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        write_result(folder, result)


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> list[Path]:
    """Write RGB pictures as PNG and return their paths."""
    return [write_picture(folder / f"{name}.png", picture) for name, picture in sorted(pictures.items())]


def write_picture(path: Path, picture: np.ndarray) -> Path:
    """Write an RGB or a grey picture as PNG."""
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    _, encoded = cv2.imencode(".png", stored)
    write_atomically(path, lambda temporary: _write_bytes(temporary, encoded.tobytes()), ResultError)
    return path


def write_report(
    path: Path, results: Sequence[Result], tables: Mapping[str, Table], pictures: Sequence[Path]
) -> Path:
    """Write a page with the tables, the IoU of every class and the panels, and return its path."""
    first = results[0]
    heading = f"{first.method} on {first.data_set}"
    body = [f"<h1>{html.escape(heading)}</h1>"]
    body += [
        f"<h2>{html.escape(TABLES[metric])}</h2>{_table(to_terminal(table))}"
        for metric, table in tables.items()
    ]
    body.append("<h2>classes</h2>")
    body += [_classes(result) for result in results]
    if pictures:
        body.append("<h2>episodes</h2>")
    body += [f'<img src="{html.escape(_relative(picture, path))}" alt="">' for picture in pictures]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(heading)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
    )
    write_text(path, page, ResultError)
    return path


def _table(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def _classes(result: Result) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in result.class_iou)
    cells = "".join(
        f"<td>{'-' if value is None else f'{100 * value:.2f}'}</td>" for value in result.class_iou.values()
    )
    title = f"fold {result.fold}, {result.shot}-shot"
    note = f"<p>{title}: {result.tested_in_words}</p>" if result.tested_in_words else ""
    return f"<table><tr><th></th>{head}</tr><tr><td>{title}</td>{cells}</tr></table>{note}"


def _relative(picture: Path, page: Path) -> str:
    return picture.relative_to(page.parent).as_posix()


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
