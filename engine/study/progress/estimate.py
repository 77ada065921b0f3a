"""How long jobs take, by those that were measured in the same folder, of this study or of another one.

The estimate of a job follows from the jobs of the same kind, method, backbone and data set; where none
of them has been measured, from those of the same kind and method; else from those of the same kind.
Trainings are compared by their seconds per epoch, tests by their seconds per episode.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.running.records import JOBS, Attempt, JobRecord, Traits
from fewseg.engine.study.running.state import State, results_of


@dataclass(frozen=True)
class Estimate:
    """The expected duration of a job.

    Attributes:
        seconds: the duration.
        measured: the number of measured jobs that it follows from.
    """

    seconds: float
    measured: int


class Estimates:
    """Estimates from measured jobs.

    Args:
        measured: the traits of every measured job, and the seconds that it took.

    Attributes:
        measured: the number of measured jobs.
    """

    def __init__(self, measured: Iterable[tuple[Traits, float]]) -> None:
        groups: dict[tuple[str, ...], list[tuple[float, int]]] = defaultdict(list)
        known = [*measured]
        for traits, seconds in known:
            for group in _groups(traits):
                groups[group].append((seconds, traits.size))
        self.measured = len(known)
        self._rates = {
            group: (
                math.fsum(seconds for seconds, _ in members) / sum(size for _, size in members),
                len(members),
            )
            for group, members in groups.items()
        }
        self._usual = statistics.fmean(seconds for _, seconds in known) if known else 1.0

    @classmethod
    def read(cls, jobs: StudyJobs, states: Mapping[str, State]) -> Estimates:
        """Return the estimates by all jobs that were measured in the folder of a study.

        Of tests that were not carried out by a study, the seconds in their results count.
        """
        folders = (jobs.study.root / JOBS).glob("*/")
        measured = {folder.name: found for folder in folders if (found := JobRecord(folder).measured())}
        for key, job in jobs.jobs.items():
            if key not in measured and job.kind is Kind.TEST and states[key] is State.DONE:
                results = results_of(job, jobs.jobs)
                if results:
                    measured[key] = Traits.of(job), math.fsum(r.seconds for r in results.values())
        return cls(measured.values())

    def of(self, job: Job) -> Estimate | None:
        """Return the estimate of a job; None where no job of its kind was measured."""
        traits = Traits.of(job)
        for group in _groups(traits):
            if group in self._rates:
                rate, number = self._rates[group]
                return Estimate(rate * traits.size, number)
        return None

    def seconds(self, job: Job) -> float:
        """Return a duration by which jobs can be ordered: the mean of all measured jobs where unknown."""
        estimate = self.of(job)
        return self._usual if estimate is None else estimate.seconds


def seconds_left(job: Job, state: State, attempts: Sequence[Attempt], estimates: Estimates) -> float | None:
    """Return how long a job will still take; None where nothing is known about it.

    Args:
        job: the job.
        state: how far it is.
        attempts: its starts up to now, if it runs.
        estimates: of all jobs.
    """
    estimate = estimates.of(job)
    if state is State.DONE:
        return 0.0
    if estimate is None or state is not State.RUNNING:
        return None if estimate is None else estimate.seconds
    spent = math.fsum(attempt.seconds for attempt in attempts if attempt.seconds is not None)
    if attempts and attempts[-1].seconds is None:
        spent += time.time() - attempts[-1].begun
    return max(0.0, estimate.seconds - spent)


def seconds_by_pace(live: Mapping[str, Any]) -> float | None:
    """Return how long a training or a test will still take by its pace, a training without its validations.

    Args:
        live: what the job says about itself in ``live.json``.
    """
    try:
        if "episodes" in live:
            return max(0.0, (live["episodes"] - live["episode"]) * live["seconds_an_episode"])
        epochs, steps = live["epochs"] - live["epoch"], live["steps"] - live["step"]
        return max(0.0, (epochs * live["steps"] + steps) * live["seconds_a_step"])
    except (KeyError, TypeError):  # before its first step
        return None


def _groups(traits: Traits) -> Iterator[tuple[str, ...]]:
    """Yield what the jobs that resemble a job have in common, the closest resemblance first."""
    yield traits.kind, traits.method, traits.backbone, traits.data_set
    yield traits.kind, traits.method
    yield (traits.kind,)
