"""Tables from result files: for the terminal, Markdown, CSV and LaTeX.

A row is a method and a column a fold, followed by the mean over the folds and the mean FB-IoU. Whatever else
differs between the rows (backbone, shot, protocol, ...) has its own column; what they share is in the title.
A second table has a row for every class of a fold, and a column for every row of the first one.
"""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fewseg.util.errors import ResultError
from fewseg.util.results.identity import file_name
from fewseg.util.results.result import Result
from fewseg.util.results.table_rows import Trait, arrange, notes_on_classes

Interval = tuple[float, float]
FindInterval = Callable[[Sequence[Result], str], Interval | None]
"""Gives the interval of a metric's mean over results, as fractions; None where it is not known."""


@dataclass(frozen=True)
class Value:
    """A figure in per cent.

    Attributes:
        mean: the figure, a mean over the seeds.
        std: its standard deviation over the seeds, where there are several.
        interval: its 95 % interval, where that is known.
    """

    mean: float
    std: float | None = None
    interval: Interval | None = None

    def text(self, plus_minus: str = " ± ") -> str:
        """Return the figure with two decimals, deviation and interval: ``61.20 ± 0.35 [60.80, 61.60]``."""
        deviation = "" if self.std is None else f"{plus_minus}{self.std:.2f}"
        interval = "" if self.interval is None else " [{:.2f}, {:.2f}]".format(*self.interval)
        return f"{self.mean:.2f}{deviation}{interval}"


@dataclass(frozen=True)
class Row:
    """The labels of a row and its figures, None for a fold that was not tested."""

    labels: tuple[str, ...]
    values: tuple[Value | None, ...]


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, the rows, and notes on the figures, which CSV leaves out."""

    title: str
    label_columns: tuple[str, ...]
    value_columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def build_table(
    results: Sequence[Result],
    metric: str = "mIoU",
    last: str | None = "FB-IoU",
    *,
    interval: FindInterval | None = None,
    more: Mapping[str, Trait] | None = None,
) -> Table:
    """Arrange results in a table.

    Args:
        results: in the order of the rows.
        metric: shown per fold and in the mean.
        last: another metric, whose mean over the folds is the last column where all results have it.
        interval: gives the intervals of the means; None for a table without them.
        more: traits that distinguish rows, besides the usual ones.

    Raises:
        ResultError: no results, the same run twice, or no such metric.
    """
    if not results:
        raise ResultError("no results to tabulate; run test.py first")
    for result in results:
        if metric not in result.mean:
            raise ResultError(f"{file_name(result)}: has no metric {metric}; it has {', '.join(result.mean)}")
    arranged = arrange(results, more)
    folds = sorted({result.fold for result in results})
    metrics = [metric]
    if last is not None and all(last in result.mean for result in results):
        metrics.append(last)
    return Table(
        title=", ".join([metric, *arranged.shared]),
        label_columns=arranged.label_columns,
        value_columns=(*(f"fold{fold}" for fold in folds), "mean", *metrics[1:]),
        rows=tuple(
            Row(labels, _figures(by_fold, folds, metrics, interval))
            for labels, by_fold in arranged.rows.items()
        ),
        notes=() if metric == "mIoU_base" else notes_on_classes(results),
    )


def _figures(
    by_fold: Mapping[int, Result], folds: Sequence[int], metrics: Sequence[str], interval: FindInterval | None
) -> tuple[Value | None, ...]:
    per_fold = [_value([by_fold[fold]], metrics[0]) if fold in by_fold else None for fold in folds]
    complete = [by_fold[fold] for fold in folds] if all(per_fold) else None
    means = (_value(complete, metric, interval) if complete else None for metric in metrics)
    return (*per_fold, *means)


def _value(results: Sequence[Result], metric: str, interval: FindInterval | None = None) -> Value:
    """Average over folds; the deviation is that of this average over the seeds, if the folds share them."""
    mean = statistics.fmean(result.mean[metric] for result in results)
    seeds = {tuple(seed.seed for seed in result.seeds) for result in results}
    bounds = interval(results, metric) if interval else None
    between = None if bounds is None else (100 * bounds[0], 100 * bounds[1])
    if len(seeds) > 1 or len(next(iter(seeds))) == 1:
        return Value(100 * mean, interval=between)
    by_seed = zip(*([seed.metrics[metric] for seed in result.seeds] for result in results), strict=True)
    std = 100 * statistics.pstdev(statistics.fmean(values) for values in by_seed)
    return Value(100 * mean, std, between)


def build_class_table(results: Sequence[Result]) -> Table:
    """Arrange the IoU of every class, without a figure where a method was not tested on it.

    Raises:
        ResultError: the same run twice.
    """
    arranged = arrange(results)
    classes = dict.fromkeys((result.fold, name) for result in results for name in result.class_iou)
    return Table(
        title=", ".join(["IoU of every class", *arranged.shared]),
        label_columns=("fold", "class"),
        value_columns=tuple(_class_heading(arranged.label_columns, labels) for labels in arranged.rows),
        rows=tuple(
            Row(
                (str(fold), name),
                tuple(_class_value(by_fold.get(fold), name) for by_fold in arranged.rows.values()),
            )
            for fold, name in sorted(classes, key=lambda pair: pair[0])
        ),
        notes=notes_on_classes(results),
    )


def _class_heading(columns: Sequence[str], labels: Sequence[str]) -> str:
    """Return the method and the traits that distinguish its column: ``bam, shot 5``."""
    traits = zip(columns[1:], labels[1:], strict=True)
    return ", ".join([labels[0], *(f"{name} {value}" for name, value in traits if value != "-")])


def _class_value(result: Result | None, class_name: str) -> Value | None:
    """Return a class's mean and, where several seeds test it, its deviation over them."""
    values = [] if result is None else result.values_of(class_name)
    if not values:
        return None
    std = 100 * statistics.pstdev(values) if len(values) > 1 else None
    return Value(100 * statistics.fmean(values), std)


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
    return "\n".join([table.title, text[0], "-" * max(map(len, text)), *text[1:], *table.notes]) + "\n"


def to_markdown(table: Table) -> str:
    """Return the table in Markdown, its title above it."""
    header, *rows = ["| " + " | ".join(line) + " |" for line in _cells(table)]
    rule = "|" + "---|" * len(table.label_columns) + "---:|" * len(table.value_columns)
    notes = [line for note in table.notes for line in ("", note)]
    return "\n".join([f"{table.title}", "", header, rule, *rows, *notes]) + "\n"


def to_csv(table: Table) -> str:
    """Return the table as CSV.

    Every figure (``-`` where there is none) is followed by its standard deviation (empty where there is none)
    and, in columns with intervals, by the two ends of its interval.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(zip(*(row.values for row in table.rows), strict=True))
    ends = [
        ("", "_std", "_low", "_high") if any(value and value.interval for value in column) else ("", "_std")
        for column in columns
    ]
    heads = [f"{name}{end}" for name, own in zip(table.value_columns, ends, strict=True) for end in own]
    writer.writerow([*table.label_columns, *heads])
    for row in table.rows:
        cells: list[str] = []
        for value, own in zip(row.values, ends, strict=True):
            figures = (
                (None,) * 4 if value is None else (value.mean, value.std, *(value.interval or (None, None)))
            )
            shown = ["" if figure is None else f"{figure:.4f}" for figure in figures[: len(own)]]
            cells += [shown[0] or "-", *shown[1:]]
        writer.writerow([*row.labels, *cells])
    return text.getvalue()


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX tabular (package booktabs)."""
    header, *rows = (" & ".join(map(_escaped, line)) + r" \\" for line in _cells(table, r" $\pm$ "))
    columns = "l" * len(table.label_columns) + "r" * len(table.value_columns)
    comments = [f"% {line}" for line in (table.title, *table.notes)]
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    body = [r"\toprule", header, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([*comments, begin, *body, end]) + "\n"


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
    return re.sub(r"([_&%#])", r"\\\1", cell)
