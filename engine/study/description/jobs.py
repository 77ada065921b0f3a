"""The jobs of a study: what must run, by which command, and after what.

A job is one command of a script. Its key is a hash of its resolved config without paths, and of the keys of
the jobs whose weights or labels it reads. Equal jobs of several studies are therefore one job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from fewseg.engine.study.description.grid import Cell
from fewseg.engine.study.description.study_file import StudyFile
from fewseg.util.config import Config


class Kind(Enum):
    """What a job does."""

    BASE = "base"
    TRAIN = "train"
    MINE = "mine"
    TEST = "test"


@dataclass(frozen=True)
class Job:
    """One command, and what it depends on.

    Attributes:
        key: 12 hex digits; equal for equal work.
        kind: what it does.
        name: what it does, in words.
        script: the script and its arguments, without the interpreter.
        config: config of the run; for a test, that of its first number of shots.
        folder: folder that it writes into: of the run, of the mined labels, or of the results.
        needs: the keys of the jobs that must be done before.
        processes: number of processes, one per GPU.
        results: keys of the results that a test gives; empty for other jobs.
    """

    key: str
    kind: Kind
    name: str
    script: tuple[str, ...]
    config: Config
    folder: Path
    needs: tuple[str, ...] = ()
    processes: int = 1
    results: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyJobs:
    """All jobs of a study, every one after those that it needs, and where the figure of every cell is.

    Attributes:
        study: the study.
        jobs: key -> job, in an order in which they can run.
        cells: cell -> key of its test job and key of its result.
    """

    study: StudyFile
    jobs: Mapping[str, Job]
    cells: Sequence[tuple[Cell, str, str]]

    @cached_property
    def dependents(self) -> Mapping[str, tuple[str, ...]]:
        """Job -> the jobs that need it directly."""
        by_need: dict[str, list[str]] = {key: [] for key in self.jobs}
        for job in self.jobs.values():
            for need in job.needs:
                by_need[need].append(job.key)
        return {key: tuple(jobs) for key, jobs in by_need.items()}
