"""Comparing results: which of them may share a table, 95 % intervals, and paired differences.

Intervals come from a bootstrap over the episodes. Methods that were tested on the same episodes are drawn
together: what is easy for one is mostly easy for the other, so differences have narrow intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewseg.util.errors import ResultError
from fewseg.util.live import LIVE
from fewseg.util.results.episode_counts import EpisodeCounts, counts_path, read_counts
from fewseg.util.results.folder import BASELINES, EARLIER
from fewseg.util.results.result import Result, read_result
from fewseg.util.results.table_rows import Trait, row_key, with_changes
from fewseg.util.results.tables import Interval, Row, Table, Value, build_table

_OF_RUNS = (LIVE, "finished.json")
"""Files in the folders of runs that are no results."""

KINDS: dict[str, Trait] = {
    "protocols": lambda result: with_changes(result.protocol, result.protocol_difference),
    "treatments of novel classes in training images": lambda result: result.novel_in_train,
    "settings": lambda result: result.setting,
    "annotations of supports": lambda result: result.annotation,
    "results of an oracle and others": lambda result: "an oracle's" if result.oracle else "no oracle's",
}
"""What must be equal among all results of a table, besides the episodes of equal tests."""


@dataclass(frozen=True)
class Run:
    """A result, its file, and the counts of its episodes where there is a file of them beside it."""

    path: Path
    result: Result
    counts: EpisodeCounts | None


def read_runs(arguments: Iterable[str]) -> list[Run]:
    """Read results.

    Args:
        arguments: files, or folders of which all results are read; ``NAME=PATH`` names their method NAME.

    Raises:
        ResultError: there is no result, or a file is not one.
    """
    runs = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or Path(argument).exists():
            name, path = "", argument
        files = _files(Path(path))
        if not files:
            raise ResultError(f"{path}: no result files (*.json) there; run test.py first")
        for file in files:
            result = read_result(file)
            counts = _counts_of(file, result)
            runs.append(Run(file, result.model_copy(update={"method": name}) if name else result, counts))
    return runs


def _counts_of(file: Path, result: Result) -> EpisodeCounts | None:
    path = counts_path(file)
    if not path.is_file():
        return None
    counts = read_counts(path)
    if list(counts.hashes) != [seed.episode_hash for seed in result.seeds]:
        raise ResultError(f"{path}: counts other episodes than {file.name}; test again")
    return counts


def require_comparable(runs: Sequence[Run]) -> None:
    """Raise ResultError if the runs differ in more than the method, so that one table would mislead."""
    for what, kind in KINDS.items():
        first = runs[0]
        of_first = kind(first.result)
        other = next((run for run in runs if kind(run.result) != of_first), None)
        if other is not None:
            raise ResultError(
                f"different {what}: {first.path} has {of_first}, {other.path} has {kind(other.result)}; "
                "compare like with like, or give --mixed for a column that tells them apart"
            )
    require_same_episodes(
        runs,
        "name the files of one number of episodes, such as *_5x1000*.json, or give --mixed for a column that "
        "tells them apart",
    )


def require_same_episodes(runs: Sequence[Run], remedy: str) -> None:
    """Raise ResultError if two runs test the same fold with the same shots and ways on other episodes.

    Args:
        runs: the runs.
        remedy: what the message ends with.
    """
    first_of_test: dict[tuple[str, int, int, int], Run] = {}
    for run in runs:
        first = first_of_test.setdefault(run.result.test, run)
        if run.result.episode_hash != first.result.episode_hash:
            raise ResultError(
                f"different episodes: {first.path} and {run.path} do not test fold {run.result.fold} on the "
                f"same ones; {remedy}"
            )


def comparison_table(
    runs: Sequence[Run], metric: str, last: str | None, *, draws: int = 1000, mixed: bool = False
) -> Table:
    """Arrange results in rows, with the interval of every mean.

    Args:
        runs: in the order of the rows.
        metric, last: as in ``build_table``.
        draws: of the bootstrap.
        mixed: add a column that names the set of episodes.
    """
    counts = {id(run.result): run.counts for run in runs}

    def interval(results: Sequence[Result], name: str) -> Interval | None:
        usable = [entry for entry in (counts[id(r)] for r in results) if entry and name in entry.names()]
        if len(usable) < len(results):
            return None
        return bounds(np.mean([entry.resample(name, draws) for entry in usable], axis=0))

    more = {"episode set": _episode_sets(runs)} if mixed else {}
    return build_table([run.result for run in runs], metric, last, interval=interval, more=more)


def difference_table(runs: Sequence[Run], metric: str, *, draws: int = 1000) -> Table | None:
    """Subtract from every row the first row on the same episodes; None where no two rows can be paired.

    A figure is the difference of the metric in points of per cent, with its interval.
    """
    rows: dict[tuple[str, ...], dict[int, Run]] = {}
    sets = {"episode set": _episode_sets(runs)}
    for run in runs:
        if run.counts is not None and metric in run.counts.names():
            rows.setdefault(row_key(run.result, sets), {})[run.result.fold] = run
    references: dict[tuple[object, ...], list[dict[int, Run]]] = {}
    for by_fold in rows.values():
        episodes = tuple(sorted((run.result.test, run.result.episode_hash) for run in by_fold.values()))
        references.setdefault(episodes, []).append(by_fold)
    folds = sorted({fold for by_fold in rows.values() for fold in by_fold})
    pairs = [
        Row(_labels(by_fold, others[0]), _differences(by_fold, others[0], folds, metric, draws))
        for others in references.values()
        for by_fold in others[1:]
    ]
    if not pairs:
        return None
    columns = (*(f"fold{fold}" for fold in folds), "mean")
    title = f"{metric}, paired differences in points, with 95 % intervals"
    return Table(title, ("difference", "shot"), columns, tuple(pairs))


def bounds(values: np.ndarray) -> Interval:
    """Return the middle 95 % of the values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _labels(by_fold: dict[int, Run], reference: dict[int, Run]) -> tuple[str, str]:
    own, other = (next(iter(runs.values())).result for runs in (by_fold, reference))
    names = [
        f"{result.method} {result.backbone}"
        + (
            f" trained on {result.trained_on}"
            if own.trained_on != other.trained_on and result.trained_on
            else ""
        )
        for result in (own, other)
    ]
    return " - ".join(names), str(own.shot)


def _differences(
    by_fold: dict[int, Run], reference: dict[int, Run], folds: Sequence[int], metric: str, draws: int
) -> tuple[Value | None, ...]:
    values, resampled = {}, {}
    for fold in sorted(by_fold):
        own, other = by_fold[fold].counts, reference[fold].counts
        assert own is not None and other is not None  # difference_table leaves out results without counts
        values[fold] = own.value(metric) - other.value(metric)
        resampled[fold] = own.resample(metric, draws) - other.resample(metric, draws)
    cells = (_in_points(values[fold], resampled[fold]) if fold in values else None for fold in folds)
    if len(values) < len(folds):
        return *cells, None
    return *cells, _in_points(np.mean([*values.values()]), np.mean([*resampled.values()], axis=0))


def _in_points(value: float | np.floating, resampled: np.ndarray) -> Value:
    low, high = bounds(resampled)
    return Value(100 * float(value), interval=(100 * low, 100 * high))


def _episode_sets(runs: Sequence[Run]) -> Trait:
    """Return a trait that names the episode sets of a test by letters, in order of appearance."""
    sets: dict[tuple[str, int, int, int], list[str]] = {}
    for run in runs:
        hashes = sets.setdefault(run.result.test, [])
        if run.result.episode_hash not in hashes:
            hashes.append(run.result.episode_hash)
    return lambda result: chr(ord("A") + sets[result.test].index(result.episode_hash))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(
        file for file in path.rglob("*.json") if file.name not in _OF_RUNS and not file.name.startswith(".")
    )
    left_out = {BASELINES, EARLIER} - {path.name}
    return [file for file in files if not left_out.intersection(file.relative_to(path).parts[:-1])]
