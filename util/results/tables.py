"""Tables from result files; ``formats`` writes them.

A row is a method and a column a fold, followed by the mean over the folds and the mean FB-IoU. Whatever else
differs between the rows (backbone, shot, protocol, ...) has its own column; what they share is in the title.
A second table has a row for every class of a fold, and a column for every row of the first one.
"""

from __future__ import annotations

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
    """A figure, in per cent if it is a metric.

    Attributes:
        mean: the figure, a mean over the seeds.
        std: its standard deviation over the seeds, where there are several.
        interval: its 95 % interval, where that is known.
        decimals: number of decimals that are shown.
    """

    mean: float
    std: float | None = None
    interval: Interval | None = None
    decimals: int = 2

    def text(self, plus_minus: str = " ± ") -> str:
        """Return the figure with its deviation and its interval: ``61.20 ± 0.35 [60.80, 61.60]``."""
        deviation = "" if self.std is None else f"{plus_minus}{self.std:.{self.decimals}f}"
        interval = "" if self.interval is None else " [{:.2f}, {:.2f}]".format(*self.interval)
        return f"{self.mean:.{self.decimals}f}{deviation}{interval}"


@dataclass(frozen=True)
class Row:
    """The labels of a row and its figures, None for a fold that was not tested."""

    labels: tuple[str, ...]
    values: tuple[Value | None, ...]


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, the rows, and notes on the figures, which CSV leaves out.

    ``groups`` holds for every column of figures what it shares with its neighbours, such as ``1-shot``; it is
    empty where columns are not grouped.
    """

    title: str
    label_columns: tuple[str, ...]
    value_columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def headings(self) -> tuple[str, ...]:
        """The full names of the columns of figures: ``1-shot fold0``."""
        groups = self.groups or ("",) * len(self.value_columns)
        pairs = zip(groups, self.value_columns, strict=True)
        return tuple(f"{group} {name}".strip() for group, name in pairs)


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
    per_fold = [mean_value([by_fold[fold]], metrics[0]) if fold in by_fold else None for fold in folds]
    complete = [by_fold[fold] for fold in folds] if all(per_fold) else None
    means = (mean_value(complete, metric, interval) if complete else None for metric in metrics)
    return (*per_fold, *means)


def mean_value(results: Sequence[Result], metric: str, interval: FindInterval | None = None) -> Value:
    """Average a metric over results, such as those of all folds.

    The deviation is that of this average over the seeds of the tests, if the results share them.
    """
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
