"""A folder of results: the path of every file, the results that it holds, and which of them share a table.

``NAME.json`` is a result, ``NAME.npz`` holds its counts, ``pictures/NAME`` its pictures, ``figures/NAME``
its figures, and ``partial/NAME`` the counts of a test that has not ended. Baselines are in ``baselines``. A
result that is replaced by one of the same name is moved to ``earlier``; nothing is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from fewseg.util.errors import ResultError
from fewseg.util.results.episode_counts import EpisodeCounts, counts_path
from fewseg.util.results.identity import (
    departures,
    file_name,
    is_of_another_run,
    same_measurement,
    table_name,
    told_apart,
)
from fewseg.util.results.result import Result, read_result, write_result
from fewseg.util.results.table_rows import row_key

BASELINES, EARLIER = "baselines", "earlier"
"""Folders beside results that are left out of tables and comparisons, unless they are named themselves."""


@dataclass(frozen=True)
class ResultFolder:
    """A folder of results, at ``path``."""

    path: Path

    @property
    def tables(self) -> Path:
        """The folder of the tables, with one below it for every set of comparable results."""
        return self.path / "tables"

    @property
    def baselines(self) -> ResultFolder:
        """The folder of the baselines, which need no training."""
        return ResultFolder(self.path / BASELINES)

    @property
    def report(self) -> Path:
        """The page that shows all results, tables and pictures."""
        return self.path / "report.html"

    def file_of(self, result: Result) -> Path:
        """Return where a result is written."""
        return self.path / file_name(result)

    def pictures_of(self, file: Path) -> Path:
        """Return the folder of the pictures of a result's file."""
        return self.path / "pictures" / file.stem

    def figures_of(self, file: Path) -> Path:
        """Return the folder of the figures of a result's file."""
        return self.path / "figures" / file.stem

    def partial_of(self, file: Path) -> Path:
        """Return the folder of the counts that a result's test has kept so far."""
        return self.path / "partial" / file.stem

    def results(self) -> dict[Path, Result]:
        """Return all readable results by their files; files that are no results are left out."""
        results = {}
        for path in sorted(self.path.glob("*.json")):
            with suppress(ResultError):
                results[path] = read_result(path)
        return results

    def find(self, result: Result) -> Path | None:
        """Return the file of a result of the same measurement, whatever its name; None if there is none."""
        stored = self.results().items()
        return next((path for path, other in stored if same_measurement(other, result)), None)

    def told_apart(self, result: Result) -> Result:
        """Return ``result`` with a name of its own, where its name is that of another run's result here."""
        name = file_name(result)
        namesakes = (other for other in self.results().values() if file_name(other) == name)
        return told_apart(result, [other for other in namesakes if is_of_another_run(other, result)])

    def make_room(self, result: Result) -> list[Path]:
        """Move the results that ``result`` would replace to ``earlier`` and return their new files.

        These are results whose content gives them the same name but that are of another checkpoint or other
        settings, and a file of that name that cannot be read. The same measurement stays and is overwritten.

        Raises:
            ResultError: a file cannot be moved.
        """
        own = self.file_of(result)
        stored = self.results()
        replaced = [
            path
            for path, other in stored.items()
            if file_name(other) == own.name and not (path == own and same_measurement(other, result))
        ]
        replaced += [own] if own.exists() and own not in stored else []
        return [self._put_aside(path, stored.get(path)) for path in replaced]

    def add(self, result: Result, counts: EpisodeCounts | None = None) -> Path:
        """Write a result and return its path; its counts are written first, so that a result is complete.

        Raises:
            ResultError: a file cannot be written.
        """
        path = self.file_of(result)
        counts_path(path).unlink(missing_ok=True)
        if counts is not None:
            counts.write(counts_path(path))
        return write_result(path, result)

    def _put_aside(self, path: Path, result: Result | None) -> Path:
        """Move a result, its counts, its pictures and its figures."""
        mark = (result.checkpoint_hash or "")[:8] if result else ""
        stem = "_".join(part for part in (path.stem, mark) if part)
        target = _free(self.path / EARLIER / f"{stem}.json")
        aside = ResultFolder(target.parent)
        drawn = {
            self.pictures_of(path): aside.pictures_of(target),
            self.figures_of(path): aside.figures_of(target),
        }
        moves = {
            picture: folder / picture.name
            for own, folder in drawn.items()
            for picture in sorted(own.glob("*"))
            if picture.suffix in (".png", ".pdf", ".html")
        }
        moves |= {counts_path(path): counts_path(target)} if counts_path(path).exists() else {}
        for source, destination in {**moves, path: target}.items():
            try:
                destination.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, destination)
            except FileNotFoundError:  # another test has moved it
                continue
            except OSError as failure:
                raise ResultError(
                    f"{source}: cannot be moved to {destination} ({failure.strerror}); choose another folder"
                ) from failure
        return target


def comparable_groups(results: Mapping[Path, Result]) -> dict[str, dict[Path, Result]]:
    """Return the results that may share a table, by a name for each table.

    They were tested under one protocol, with the same changes, on the same episodes. No table holds two
    results of one fold in one row.
    """
    groups: dict[str, dict[Path, Result]] = {}
    for path, result in sorted(results.items(), key=_order):
        number = 1
        name = common = table_name(result)
        while name in groups and not _fits(result, [*groups[name].values()]):
            number += 1
            name = f"{common}_{number}"
        groups.setdefault(name, {})[path] = result
    return groups


def _order(entry: tuple[Path, Result]) -> tuple[object, ...]:
    path, result = entry
    return result.method, result.variant or "", result.backbone, result.ways, result.shot, result.fold, path


def _fits(result: Result, others: Sequence[Result]) -> bool:
    """Return whether a result may join others in one table."""
    same_test = [other for other in others if other.test == result.test]
    return (
        departures(others[0]) == departures(result)
        and others[0].novel_in_train == result.novel_in_train
        and all(other.episode_hash == result.episode_hash for other in same_test)
        and all(row_key(other) != row_key(result) for other in same_test)
    )


def baselines_of(results: Sequence[Result], baselines: Iterable[Result]) -> list[Result]:
    """Return the baselines on the episodes of ``results``, each of them once.

    They differ from ``results`` in the method only, because nothing of a training concerns them.
    """
    episodes = {result.episode_hash for result in results}
    shared: dict[str, Any] = {
        **{"variant": None, "trained_on": None, "trained_under": None, "training_difference": {}},
    }
    for name in shared:
        if all(getattr(result, name) == getattr(results[0], name) for result in results):
            shared[name] = getattr(results[0], name)
    first: dict[tuple[object, ...], Result] = {}
    for baseline in baselines:
        if baseline.episode_hash in episodes:
            key = baseline.method, baseline.backbone, *baseline.test
            first.setdefault(key, baseline.model_copy(update=shared))
    return list(first.values())


def _free(path: Path) -> Path:
    """Return ``path``, or the first of ``NAME_2``, ``NAME_3`` and so on, that does not exist."""
    numbered = (path.with_name(f"{path.stem}_{number}{path.suffix}") for number in count(2))
    return next(free for free in chain([path], numbered) if not free.exists())
