"""Writing the results of a test: each run's when it has been tested, then tables and the report of all."""

from __future__ import annotations

from pathlib import Path

from fewseg.engine.evaluation.measure import Measurement
from fewseg.engine.reports.figures.rounds import rounds_figure
from fewseg.engine.reports.figures.style import write_figure
from fewseg.engine.reports.page import PAGE
from fewseg.engine.reports.report import Section, write_pictures, write_report, write_tables
from fewseg.util import distributed
from fewseg.util.results.folder import ResultFolder, baselines_of, comparable_groups
from fewseg.util.results.result import Result, read_result, write_result


def record(folder: ResultFolder, measurement: Measurement) -> list[Path]:
    """Write the files of a measurement, its result last, and return the new paths of earlier files.

    Raises:
        ResultError: a file cannot be written.
    """
    result = folder.told_apart(measurement.result)
    moved = folder.make_room(result)
    pictures = folder.pictures_of(folder.file_of(result))
    for picture in pictures.glob("*.png"):
        picture.unlink()
    write_pictures(pictures, measurement.pictures)
    if result.rounds:
        write_figure(pictures / "rounds", rounds_figure(result))
    for baseline in measurement.baselines:
        moved += _add_baseline(folder.baselines, baseline)
    folder.add(result, measurement.counts)
    return moved


def stored_result(path: Path, wanted: Result) -> Result:
    """Return a result that was measured before, and write the key of the test that asks for it into its file.

    The file may have another key, or none: it was written by an earlier version, or by a test whose config
    left to the checkpoint what this one says.
    """
    stored = read_result(path)
    if stored.key == wanted.key:
        return stored
    stored = stored.model_copy(update={"key": wanted.key})
    if distributed.is_main():
        write_result(path, stored)
    return stored


def write_overview(folder: ResultFolder) -> dict[str, Section]:
    """Write the tables and the report of all results in a folder; return these by the names of the tables.

    Raises:
        ResultError: a file cannot be written.
    """
    baselines = folder.baselines.results().values()
    sections = {
        name: Section(
            results,
            baselines_of([*results.values()], baselines),
            {file: sorted(folder.pictures_of(file).glob("*.png")) for file in results},
            {file: page for file in results if (page := folder.figures_of(file) / PAGE).is_file()},
        )
        for name, results in comparable_groups(folder.results()).items()
    }
    write_tables(folder.tables, sections)
    write_report(folder.report, sections)
    return sections


def _add_baseline(folder: ResultFolder, baseline: Result) -> list[Path]:
    """Write the result of a baseline, and return the new paths of earlier files."""
    if not _is_there(folder, baseline):
        baseline = folder.told_apart(baseline)
    moved = [] if _is_there(folder, baseline) else folder.make_room(baseline)
    folder.add(baseline)
    return moved


def _is_there(folder: ResultFolder, baseline: Result) -> bool:
    """Return whether this baseline's result on the same episodes exists, from the test of any method."""
    stored = folder.results().get(folder.file_of(baseline))
    return stored is not None and stored.episode_hash == baseline.episode_hash
