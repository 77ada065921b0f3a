"""Which files in the folder of a run were made by the scripts, and which ones were put there by a user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fewseg.engine.setup.run_folder import BOARD, WEIGHTS
from fewseg.engine.setup.run_path import RUN_CONFIG, RUN_LOG
from fewseg.engine.training.finished import FINISHED
from fewseg.util.live import LIVE
from fewseg.util.lock import LOCK, OWNER
from fewseg.util.results.folder import ResultFolder

RESULTS = "results"

_NAMES = (*WEIGHTS, RUN_CONFIG, RUN_LOG, FINISHED, LIVE, "test.log")

_MADE = re.compile(
    "|".join(
        [
            rf"(.*/)?({re.escape(LOCK)}|{re.escape(OWNER)}|\.[^/]+\.part)",
            *(re.escape(name) for name in _NAMES),
            rf"{BOARD}/events\.out\.tfevents\.[^/]+",
            rf"{RESULTS}/(test\.log|report\.html|tables/.+\.(txt|md|csv|tex))",
            rf"{RESULTS}/(earlier/)?pictures/[^/]+/[^/]+\.png",
            rf"{RESULTS}/partial/[^/]+/[^/]+\.npz",
            r"mined[^/]*/(centres\.npy|mined\.json|labels/.+\.png)",
        ]
    )
)
"""Paths in the folder of a run, besides results, which are known by their content."""


@dataclass(frozen=True)
class Files:
    """The files in a folder.

    Attributes:
        made: those that the scripts wrote.
        others: all others, and links to folders, which are not followed.
        size: bytes of the files that the scripts wrote.
    """

    made: tuple[Path, ...]
    others: tuple[Path, ...]
    size: int

    @classmethod
    def of(cls, made: Iterable[Path], others: Iterable[Path]) -> Files:
        """Return these files with their size."""
        made, size = tuple(made), 0
        for path in made:
            with suppress(FileNotFoundError):  # removed by another process
                size += path.lstat().st_size
        return cls(made, tuple(others), size)


def files_below(run: Path, folder: Path) -> Files:
    """Return the files in a folder of a run.

    Args:
        run: the folder of the run.
        folder: this folder or one below it.
    """
    results = _result_files(run / RESULTS)
    made: list[Path] = []
    others: list[Path] = []
    for path in sorted(_walk(folder)):
        known = path in results or _MADE.fullmatch(path.relative_to(run).as_posix())
        (made if known and not path.is_dir() else others).append(path)
    return Files.of(made, others)


def files_of_result(file: Path) -> Files:
    """Return the files of one result: itself, its counts, and its pictures."""
    folder = ResultFolder(file.parent)
    pictures = folder.pictures_of(file)
    below = [*_walk(pictures)]
    made = [path for path in below if path.suffix == ".png" or path.name in (LOCK, OWNER)]
    counts = [path for path in [file.with_suffix(".npz")] if path.is_file()]
    return Files.of((*made, *counts, file), (path for path in below if path not in made))


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder, the folders in it and those above it up to ``root``, as far as they are empty."""
    inner = [Path(path) for path, _, _ in os.walk(folder, topdown=False)]
    above = [path for path in folder.parents if root in path.parents]
    for path in (*inner, *above):
        try:
            path.rmdir()
        except OSError:  # not empty, or gone
            continue


def _walk(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(path) / name).is_symlink()]
        yield from (Path(path) / name for name in (*files, *links))


def _result_files(folder: Path) -> set[Path]:
    found: set[Path] = set()
    for place in (folder, folder / "baselines", folder / "earlier"):
        for path in ResultFolder(place).results():
            found |= {path, path.with_suffix(".npz")}
    return found
