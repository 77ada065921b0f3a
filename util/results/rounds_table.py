"""The table of the rounds of an adaptation: what each would have scored, and how often it was chosen."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fewseg.util.results.result import Result
from fewseg.util.results.table_rows import arrange
from fewseg.util.results.tables import Row, Table, Value

METRICS = ("mIoU", "FB-IoU")
_CHOSEN = "chosen in % of episodes"


def build_rounds_table(results: Sequence[Result]) -> Table:
    """Arrange the rounds of adapted results in columns, and their figures, means over the folds, in rows.

    Args:
        results: results with rounds.

    Raises:
        ResultError: the same run twice.
    """
    arranged = arrange(results)
    most = max(len(result.rounds) for result in results)
    rows = []
    for labels, by_fold in arranged.rows.items():
        own = [*by_fold.values()]
        for metric in METRICS:
            if all(metric in result.mean for result in own):
                figures = _means([[100 * r.metrics[metric] for r in result.rounds] for result in own], most)
                returned = statistics.fmean(100 * result.mean[metric] for result in own)
                rows.append(Row((*labels, metric), (*figures, Value(returned))))
        rows.append(
            Row((*labels, _CHOSEN), (*_means([shares_of_choice(result) for result in own], most), None))
        )
    return Table(
        title=", ".join(["scores by round", *arranged.shared]),
        label_columns=(*arranged.label_columns, "figure"),
        value_columns=("unadapted", *(f"round {number}" for number in range(1, most)), "returned"),
        rows=tuple(rows),
        notes=("Every round is scored as if its prediction had been returned in all episodes.",),
    )


def shares_of_choice(result: Result) -> list[float]:
    """Return in how many of the episodes every round was chosen, in per cent."""
    return [100 * of_round.chosen / (result.episodes * len(result.seeds)) for of_round in result.rounds]


def _means(figures: Sequence[Sequence[float]], most: int) -> list[Value | None]:
    """Return the means of every round's figures over some results; None where there is no such round."""
    means: list[Value | None] = [Value(statistics.fmean(values)) for values in zip(*figures, strict=False)]
    return [*means, *[None] * (most - len(means))]
