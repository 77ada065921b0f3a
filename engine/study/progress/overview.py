"""How far a study is, in figures: its jobs with their states, what is left, and what running jobs say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewseg.engine.study.description.jobs import Job, StudyJobs
from fewseg.engine.study.progress.estimate import Estimates, seconds_by_pace, seconds_left
from fewseg.engine.study.progress.simulation import simulate
from fewseg.engine.study.running.records import Attempt, JobRecord
from fewseg.engine.study.running.state import State, states_of
from fewseg.util.live import read_live


@dataclass(frozen=True)
class JobView:
    """What is known about a job.

    Attributes:
        job: the job.
        state: how far it is.
        left: seconds that it will still take; None where that is not known.
        error: why it failed, in one line; None unless it failed.
        log: path of its log.
        attempt: its last start; None unless it runs or failed, and where none is recorded.
        live: what it says about itself while it runs, with the ``age`` of that in seconds; else None.
    """

    job: Job
    state: State
    left: float | None
    error: str | None
    log: Path
    attempt: Attempt | None
    live: Mapping[str, Any] | None


@dataclass(frozen=True)
class Overview:
    """The state of a study.

    Attributes:
        name: of the study.
        jobs: all jobs in an order in which they can run.
        cards: the number of cards that ``hours`` supposes.
        measured: the number of measured jobs that the times follow from.
        hours: until the study is done on these cards, at the least where ``unknown`` is not 0.
        card_hours: of all jobs that are left, likewise.
        unknown: the number of jobs that are left whose durations are not known.
    """

    name: str
    jobs: Sequence[JobView]
    cards: int
    measured: int
    hours: float
    card_hours: float
    unknown: int

    @property
    def in_words(self) -> str:
        """How far the study is: ``12 of 132 done, 3.4 h left``."""
        number = len(self.of(State.DONE))
        words = f"{number} of {len(self.jobs)} done"
        if number == len(self.jobs) or (self.unknown and not self.hours):
            return words
        return f"{words}, {'over ' if self.unknown else ''}{duration(self.hours * 3600)} left"

    def of(self, *states: State) -> list[JobView]:
        """Return the jobs in these states, sorted by the state."""
        return [view for state in states for view in self.jobs if view.state is state]


def duration(seconds: float | None) -> str:
    """Return seconds in words: ``45 s``, ``12 min``, ``3.4 h``; ``unknown`` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def overview_of(jobs: StudyJobs, cards: int) -> Overview:
    """Read the state of a study.

    Args:
        jobs: its jobs.
        cards: number of cards that it runs on.
    """
    states = states_of(jobs)
    estimates = Estimates.read(jobs, states)
    views = [_view(job, states[key], jobs, estimates) for key, job in jobs.jobs.items()]
    left = {view.job.key: view.left or 0.0 for view in views}
    done = [key for key, state in states.items() if state is State.DONE]
    cards = max(cards, *(job.processes for job in jobs.jobs.values()))
    return Overview(
        name=jobs.study.name,
        jobs=views,
        cards=cards,
        measured=estimates.measured,
        hours=simulate(jobs, cards, left, done=done).now / 3600,
        card_hours=math.fsum(left[view.job.key] * view.job.processes for view in views) / 3600,
        unknown=sum(view.left is None for view in views),
    )


def _view(job: Job, state: State, jobs: StudyJobs, estimates: Estimates) -> JobView:
    record = JobRecord.of(jobs.study.root, job)
    attempts = record.attempts() if state in (State.RUNNING, State.FAILED) else []
    live = read_live(job.folder) if state is State.RUNNING else None
    left = seconds_by_pace(live) if live else None
    return JobView(
        job=job,
        state=state,
        left=seconds_left(job, state, attempts, estimates) if left is None else left,
        error=record.error() if state is State.FAILED else None,
        log=record.log,
        attempt=attempts[-1] if attempts else None,
        live=live,
    )
