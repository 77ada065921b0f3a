"""The curve of an adaptation: what every round would have scored, and how often it was chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewseg.engine.reports.figures.style import COLUMN_WIDTH, empty_figure, paper_style
from fewseg.util.results.result import Result
from fewseg.util.results.rounds_table import METRICS, shares_of_choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 2.6


def rounds_figure(result: Result) -> Figure:
    """Draw the figures of every round, round 0 being the unadapted model, in per cent.

    A dashed line shows what the chosen rounds score together. The bars show in how many of the episodes each
    round was chosen.

    Args:
        result: a result with rounds.
    """
    numbers = range(len(result.rounds))
    with paper_style():
        figure = empty_figure(COLUMN_WIDTH, _HEIGHT)
        scores, chosen = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for metric in METRICS:
            if metric in result.mean:
                values = [100 * of_round.metrics[metric] for of_round in result.rounds]
                (line,) = scores.plot(numbers, values, marker="o", markersize=2.5, linewidth=1, label=metric)
                returned = 100 * result.mean[metric]
                scores.axhline(returned, color=line.get_color(), linewidth=0.7, linestyle="--")
        scores.set_ylabel("IoU in %")
        scores.legend(frameon=False)
        scores.set_title(f"{result.method}, fold {result.fold}, {result.shot}-shot (dashed: returned)")
        chosen.bar(numbers, shares_of_choice(result), width=0.6, color="0.6")
        chosen.set_ylabel("chosen in %")
        chosen.set_xlabel("round")
        chosen.set_xticks([*numbers])
        figure.tight_layout(pad=0.4)
    return figure
