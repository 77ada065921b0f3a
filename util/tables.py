"""Tables from result files: for the terminal, Markdown, CSV and LaTeX.

A row is a method, a column a fold; then come the mean over the folds and the mean FB-IoU. Whatever else
differs between the rows (backbone, shot, protocol, ...) gets a column of its own; what they share is in the
title.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from util.errors import ResultError
from util.results import Result

_TRAITS: dict[str, Callable[[Result], Any]] = {
    "data set": lambda result: result.data_set,
    "backbone": lambda result: result.backbone,
    "shot": lambda result: result.shot,
    "way": lambda result: result.ways,
    "protocol": lambda result: _with_changes(result.protocol, result.protocol_difference),
    "trained under": lambda result: _training(result),
    "novel in train": lambda result: result.novel_in_train or "-",
    "setting": lambda result: result.setting + (" (oracle)" if result.oracle else ""),
    "supports": lambda result: result.annotation,
    "episodes": lambda result: f"{len(result.seeds)} x {result.episodes}",
}
"""What makes two rows of one method different."""

_COUNTS = ("episodes", "seeds")
"""Points of a protocol that have a column of their own."""


def _with_changes(protocol: str, difference: Mapping[str, tuple[Any, Any]]) -> str:
    """Name a protocol together with the points that were changed in it."""
    points = [f"{point} {own}" for point, (_, own) in difference.items() if point not in _COUNTS]
    return f"{protocol} with {', '.join(points)}" if points else protocol


def _training(result: Result) -> str:
    """Name the protocol that a model was trained under, where that is not the one it is tested under."""
    trained = result.trained_under or result.protocol
    text = _with_changes(trained, result.training_difference)
    return "-" if text == result.protocol else text


@dataclass(frozen=True)
class Value:
    """A figure in per cent, with its standard deviation over the seeds where there are several."""

    mean: float
    std: float | None = None

    def text(self, plus_minus: str = " ± ") -> str:
        return f"{self.mean:.2f}" + ("" if self.std is None else f"{plus_minus}{self.std:.2f}")


@dataclass(frozen=True)
class Row:
    """The words on the left of a row and its figures; None where a fold is missing."""

    labels: tuple[str, ...]
    values: tuple[Value | None, ...]


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, the rows."""

    title: str
    label_columns: tuple[str, ...]
    value_columns: tuple[str, ...]
    rows: tuple[Row, ...]


def build_table(results: Sequence[Result], metric: str = "mIoU", last: str | None = "FB-IoU") -> Table:
    """Arrange results.

    Args:
        results: in the order that the rows shall have.
        metric: shown per fold and in the mean.
        last: another metric whose mean over the folds ends the row, where the results have it.

    Raises:
        ResultError: no results, the same run twice, or no such metric.
    """
    if not results:
        raise ResultError("no results to tabulate; run test.py first")
    for result in results:
        if metric not in result.mean:
            known = ", ".join(result.mean)
            raise ResultError(f"{result.file_name}: has no metric {metric}; it has {known}")
    rows: dict[tuple[str, ...], dict[int, Result]] = {}
    for result in results:
        folds = rows.setdefault((result.method, *(str(trait(result)) for trait in _TRAITS.values())), {})
        if result.fold in folds:
            raise ResultError(f"{result.file_name}: given twice; keep one of the two files")
        folds[result.fold] = result
    traits = list(zip(*rows, strict=True))[1:]
    differing = [number for number, values in enumerate(traits) if len(set(values)) > 1]
    names = list(_TRAITS)
    shared = [(name, traits[number][0]) for number, name in enumerate(names) if number not in differing]
    folds = sorted({result.fold for result in results})
    with_last = last is not None and all(last in result.mean for result in results)
    return Table(
        title=", ".join([metric, *(f"{name} {value}" for name, value in shared if value != "-")]),
        label_columns=("method", *(names[number] for number in differing)),
        value_columns=(*(f"fold{fold}" for fold in folds), "mean", *([last] if with_last else [])),
        rows=tuple(
            Row(
                (key[0], *(key[1 + number] for number in differing)),
                _figures(by_fold, folds, [metric, last] if with_last else [metric]),
            )
            for key, by_fold in rows.items()
        ),
    )


def _figures(
    by_fold: Mapping[int, Result], folds: Sequence[int], metrics: Sequence[str]
) -> tuple[Value | None, ...]:
    per_fold = [_value([by_fold[fold]], metrics[0]) if fold in by_fold else None for fold in folds]
    complete = [by_fold[fold] for fold in folds] if all(per_fold) else None
    return (*per_fold, *(_value(complete, metric) if complete else None for metric in metrics))


def _value(results: Sequence[Result], metric: str) -> Value:
    """Average over folds; the deviation is that of this average over the seeds, if the folds share them."""
    mean = statistics.fmean(result.mean[metric] for result in results)
    seeds = {tuple(seed.seed for seed in result.seeds) for result in results}
    if len(seeds) > 1 or len(next(iter(seeds))) == 1:
        return Value(100 * mean)
    by_seed = zip(*([seed.metrics[metric] for seed in result.seeds] for result in results), strict=True)
    return Value(100 * mean, 100 * statistics.pstdev(statistics.fmean(values) for values in by_seed))


def to_terminal(table: Table) -> str:
    """Return the table in aligned columns."""
    lines = _cells(table)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    labels = len(table.label_columns)
    text = [
        "  ".join(
            cell.ljust(width) if column < labels else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, text[0], "-" * max(map(len, text)), *text[1:]]) + "\n"


def to_markdown(table: Table) -> str:
    """Return the table in Markdown, its title above it."""
    header, *rows = ["| " + " | ".join(line) + " |" for line in _cells(table)]
    rule = "|" + "---|" * len(table.label_columns) + "---:|" * len(table.value_columns)
    return "\n".join([f"{table.title}", "", header, rule, *rows]) + "\n"


def to_csv(table: Table) -> str:
    """Return the table as CSV; after every figure comes its standard deviation, empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [*table.label_columns, *(f"{name}{end}" for name in table.value_columns for end in ("", "_std"))]
    )
    for row in table.rows:
        cells: list[str] = []
        for value in row.values:
            cells.append("" if value is None else f"{value.mean:.4f}")
            cells.append("" if value is None or value.std is None else f"{value.std:.4f}")
        writer.writerow([*row.labels, *cells])
    return text.getvalue()


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX tabular (package booktabs)."""
    lines = [" & ".join(map(_escaped, line)) + r" \\" for line in _cells(table, r" $\pm$ ")]
    columns = "l" * len(table.label_columns) + "r" * len(table.value_columns)
    return (
        "\n".join(
            [
                f"% {table.title}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                lines[0],
                r"\midrule",
                *lines[1:],
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "terminal": ("txt", to_terminal),
    "markdown": ("md", to_markdown),
    "csv": ("csv", to_csv),
    "latex": ("tex", to_latex),
}
"""Format -> suffix of its files, and its writer."""


def _cells(table: Table, plus_minus: str = " ± ") -> list[list[str]]:
    rows = [
        [*row.labels, *("-" if value is None else value.text(plus_minus) for value in row.values)]
        for row in table.rows
    ]
    return [[*table.label_columns, *table.value_columns], *rows]


def _escaped(cell: str) -> str:
    for character in "_&%#":
        cell = cell.replace(character, f"\\{character}")
    return cell
