"""The table of single classes: a row is a class of a fold, a column a method with its traits."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fewseg.util.results.result import Result
from fewseg.util.results.table_rows import arrange, notes_on_classes
from fewseg.util.results.tables import Row, Table, Value


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
        value_columns=tuple(_heading(arranged.label_columns, labels) for labels in arranged.rows),
        rows=tuple(
            Row(
                (str(fold), name),
                tuple(_value(by_fold.get(fold), name) for by_fold in arranged.rows.values()),
            )
            for fold, name in sorted(classes, key=lambda pair: pair[0])
        ),
        notes=notes_on_classes(results),
    )


def _heading(columns: Sequence[str], labels: Sequence[str]) -> str:
    """Return the method and the traits that distinguish its column: ``bam, shot 5``."""
    traits = zip(columns[1:], labels[1:], strict=True)
    return ", ".join([labels[0], *(f"{name} {value}" for name, value in traits if value != "-")])


def _value(result: Result | None, class_name: str) -> Value | None:
    """Return a class's mean and, where several seeds test it, its deviation over them."""
    values = [] if result is None else result.values_of(class_name)
    if not values:
        return None
    std = 100 * statistics.pstdev(values) if len(values) > 1 else None
    return Value(100 * statistics.fmean(values), std)
