"""A run of a study with a clock in place of its jobs: how long it takes, and how busy the cards are."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from fewseg.engine.study.description.jobs import Job, StudyJobs
from fewseg.engine.study.running.pool import Ended, Pool


@dataclass(frozen=True)
class Run:
    """One simulated job.

    Attributes:
        key: the key of the job.
        begin, end: seconds since the start of the study.
        cards: the cards that it held.
    """

    key: str
    begin: float
    end: float
    cards: tuple[int, ...]


@dataclass
class Simulation:
    """A launcher whose jobs only take time on a clock of its own; see ``simulate``.

    Attributes:
        runs: every start of a job, in this order.
        now: seconds since the start of the study.
    """

    seconds: Mapping[str, float]
    failing: Collection[str] = ()
    runs: list[Run] = field(default_factory=list)
    now: float = 0.0
    _ends: list[tuple[float, str]] = field(default_factory=list)

    def start(self, job: Job, cards: tuple[int, ...]) -> bool:
        end = self.now + self.seconds[job.key]
        self.runs.append(Run(job.key, self.now, end, cards))
        heapq.heappush(self._ends, (end, job.key))
        return True

    def wait(self) -> Mapping[str, Ended]:
        self.now, key = heapq.heappop(self._ends)
        return {key: Ended("simulated failure" if key in self.failing else None)}

    def elsewhere(self, job: Job) -> Ended | None:
        raise AssertionError(f"{job.name}: nobody else carries out simulated jobs")

    @property
    def busy(self) -> float:
        """The seconds that cards were held for, summed over the cards."""
        return math.fsum((run.end - run.begin) * len(run.cards) for run in self.runs)


def simulate(
    jobs: StudyJobs,
    cards: int,
    seconds: Mapping[str, float],
    *,
    expected: Mapping[str, float] | None = None,
    done: Iterable[str] = (),
    failing: Collection[str] = (),
) -> Simulation:
    """Carry out the jobs of a study on a clock.

    Args:
        jobs: the jobs.
        cards: number of cards.
        seconds: key -> how long a job takes.
        expected: key -> how long it is expected to take, which decides the order; by default ``seconds``.
        done: keys of the jobs that need not run.
        failing: keys of the jobs that fail at their end.
    """
    launcher, order = Simulation(seconds, failing), expected or seconds
    Pool(jobs, done, cards, launcher, seconds=lambda job: order[job.key]).run()
    return launcher


def least_seconds(jobs: StudyJobs, cards: int, seconds: Mapping[str, float]) -> float:
    """Return a bound that no order can undercut: the longest chain, or all work shared out evenly."""
    ends: dict[str, float] = {}
    for key, job in jobs.jobs.items():
        ends[key] = seconds[key] + max((ends[need] for need in job.needs), default=0.0)
    work = math.fsum(seconds[key] * job.processes for key, job in jobs.jobs.items())
    return max(work / cards, *ends.values())
