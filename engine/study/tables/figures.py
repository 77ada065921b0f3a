"""The figures of a study: what the tests of its cells gave, what their trainings cost, and means of both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewseg.engine.evaluation.outcome import plain
from fewseg.engine.setup.protocols import test_difference, test_protocol
from fewseg.engine.setup.tested_data import tested_annotation
from fewseg.engine.study.description.jobs import StudyJobs
from fewseg.engine.study.running.state import files_of
from fewseg.engine.training.finished import Finished
from fewseg.util.config import Config
from fewseg.util.results.comparison import KINDS, Run
from fewseg.util.results.result import Result
from fewseg.util.results.table_rows import with_changes
from fewseg.util.results.tables import Value, mean_value

SEEDS = ("seed", "manual_seed", "Train.manual_seed")
"""Names of the axis of the training seeds."""


@dataclass(frozen=True)
class Point:
    """A cell of a study with what is known about it.

    Attributes:
        labels: axis -> label.
        config: config of its test, for some number of shots.
        run: the result and its file; None for a test that has not been made.
        training: the record of its training; None where that has not ended.
    """

    labels: Mapping[str, str]
    config: Config
    run: Run | None
    training: Finished | None

    @property
    def result(self) -> Result | None:
        """The result."""
        return None if self.run is None else self.run.result

    def kind(self, name: str) -> object:
        """Return a kind of ``KINDS``; without a result as the config says, None where it does not say."""
        if self.result is not None:
            return KINDS[name](self.result)
        return _kinds_of(self.config).get(name)


@dataclass(frozen=True)
class _Cost:
    """A figure that is no metric: its heading, its number of decimals, and how it is read from a point."""

    heading: str
    decimals: int
    read: Callable[[Point], float | None]


COSTS = {
    "seconds a step": _Cost("s/step", 3, lambda point: _of_training(point, "seconds_a_step")),
    "seconds an episode": _Cost("s/episode", 3, lambda point: _seconds_an_episode(point)),
    "peak GiB": _Cost("peak, GiB", 1, lambda point: _of_training(point, "peak_gib")),
    "parameters": _Cost("parameters, M", 2, lambda point: _of_training(point, "parameters", 1e-6)),
}
"""Figures of a table besides the metrics of the results."""


def points_of(jobs: StudyJobs) -> list[Point]:
    """Return all cells of a study; a test with several results, one per way to merge, gives a point each."""
    runs: dict[str, dict[str | None, list[Run]]] = {}
    trainings: dict[str, Finished | None] = {}
    points = []
    for cell, test, key in jobs.cells:
        job = jobs.jobs[test]
        training = jobs.jobs[job.needs[0]]
        if test not in runs:
            by_key = runs[test] = {}
            for path, result in files_of(job, jobs.jobs).items():
                by_key.setdefault(result.key, []).append(Run(path, result, None))
            runs[test] = {key: _latest(found) for key, found in by_key.items()}
        if training.key not in trainings:
            trainings[training.key] = Finished.read(training.folder)
        found: Sequence[Run | None] = runs[test].get(key) or [None]
        for run in found:
            points.append(Point(cell.labels, job.config, run, trainings[training.key]))
    return points


def figure_of(points: Sequence[Point], figure: str, seeds: str | None) -> Value | None:
    """Average a figure over cells; None where it is missing for one of them.

    Args:
        points: the cells.
        figure: a metric, or one of ``COSTS``.
        seeds: the axis of the training seeds, where figures are averaged over it. The deviation is then that
            over these seeds, of the mean over all else; otherwise it is that over the seeds of the tests.
    """
    if not points:
        return None
    if figure in COSTS:
        cost = COSTS[figure]
        known = [value for value in map(cost.read, points) if value is not None]
        mean = statistics.fmean(known) if len(known) == len(points) else None
        return None if mean is None else Value(mean, decimals=cost.decimals)
    results = [point.result for point in points if point.result and figure in point.result.mean]
    if len(results) < len(points):
        return None
    if seeds is None:
        return mean_value(results, figure)
    by_seed: dict[str, dict[tuple[str, ...], float]] = {}
    for point, result in zip(points, results, strict=True):
        rest = tuple(label for name, label in point.labels.items() if name != seeds)
        by_seed.setdefault(point.labels[seeds], {})[rest] = result.mean[figure]
    means = [statistics.fmean(own.values()) for own in by_seed.values()]
    alike = len({frozenset(own) for own in by_seed.values()}) == 1
    std = 100 * statistics.pstdev(means) if alike and len(means) > 1 else None
    return Value(100 * statistics.fmean(result.mean[figure] for result in results), std)


def heading_of(figure: str) -> str:
    """Return the heading of the column of a figure."""
    return COSTS[figure].heading if figure in COSTS else figure


def _latest(runs: list[Run]) -> list[Run]:
    """Return the latest run of every setting, where a test was repeated on other episodes or weights."""
    in_turn = sorted(runs, key=lambda run: run.path.stat().st_mtime_ns)
    return [*{run.result.setting: run for run in in_turn}.values()]


def _kinds_of(config: Config) -> dict[str, Any]:
    """Return the kinds that follow from a config before the test."""
    protocol = test_protocol(config)
    return {
        "protocols": with_changes(protocol.name, plain(test_difference(config, protocol))),
        "treatments of novel classes in training images": protocol.novel_in_train,
        "annotations of supports": tested_annotation(config),
    }


def _of_training(point: Point, name: str, scale: float = 1.0) -> float | None:
    value = None if point.training is None else getattr(point.training, name)
    return None if value is None else scale * value


def _seconds_an_episode(point: Point) -> float | None:
    result = point.result
    return None if result is None else result.seconds / (result.episodes * len(result.seeds))
