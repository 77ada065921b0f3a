"""Start jobs as cards become free: those first on whose results the longest work waits."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fewseg.engine.study.description.jobs import Job, StudyJobs
from fewseg.util.errors import UserError

Seconds = Callable[[Job], float]
"""The expected duration of a job."""


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        error: its error; None for success.
        due: whether it must be started again, because the process that had claimed it has died.
    """

    error: str | None
    due: bool = False


class Launcher(Protocol):
    """What carries out jobs."""

    def start(self, job: Job, cards: tuple[int, ...]) -> bool:
        """Start a job on these cards; return False if another process has claimed or ended it."""

    def wait(self) -> Mapping[str, Ended]:
        """Wait until jobs have ended, or for a moment; return those that have, by their keys."""

    def elsewhere(self, job: Job) -> Ended | None:
        """Return how a job ended that another process had claimed; None while that is at it."""


class Pool:
    """Carries out the jobs of a study on a number of cards.

    Args:
        jobs: the jobs.
        done: keys of those that are done.
        cards: number of cards.
        launcher: starts the jobs and waits for them.
        seconds: expected duration of a job; it decides the order only.

    Attributes:
        errors: key of a job that failed -> its error.
    """

    def __init__(
        self, jobs: StudyJobs, done: Iterable[str], cards: int, launcher: Launcher, seconds: Seconds
    ) -> None:
        self._jobs, self._done, self._launcher = jobs, set(done), launcher
        self._free = [*range(cards)]
        self._held: dict[str, tuple[int, ...]] = {}
        self._elsewhere: set[str] = set()
        self.errors: dict[str, str] = {}
        ahead = _seconds_ahead(jobs, seconds)
        order = sorted(jobs.jobs, key=lambda key: -ahead[key])
        self._place = {key: place for place, key in enumerate(order)}
        self._waiting = [key for key in order if key not in self._done]
        large = next((jobs.jobs[key] for key in self._waiting if jobs.jobs[key].processes > cards), None)
        if large is not None:
            raise UserError(
                f"{large.name}: needs {large.processes} GPUs, of which there are {cards}; "
                "change processes in the study file, or --slots"
            )

    def run(self) -> None:
        """Carry out all jobs; those that need a failed one are left out."""
        while True:
            self._start_ready()
            if not self._held and not self._elsewhere:
                return
            for key, ended in self._launcher.wait().items():
                self._free += self._held.pop(key)
                self._note(key, ended)
            for key in [*self._elsewhere]:
                if (other := self._launcher.elsewhere(self._jobs.jobs[key])) is not None:
                    self._elsewhere.remove(key)
                    self._note(key, other)

    def _note(self, key: str, ended: Ended) -> None:
        if ended.due:
            insort(self._waiting, key, key=self._place.__getitem__)
        elif ended.error is None:
            self._done.add(key)
        else:
            self.errors[key] = ended.error

    def _start_ready(self) -> None:
        for key in [*self._waiting]:
            if not self._free:
                return
            job = self._jobs.jobs[key]
            if len(self._free) >= job.processes and self._done.issuperset(job.needs):
                self._waiting.remove(key)
                cards = tuple(sorted(self._free)[: job.processes])
                if self._launcher.start(job, cards):
                    self._held[key] = cards
                    self._free = [card for card in self._free if card not in cards]
                else:
                    self._elsewhere.add(key)


def _seconds_ahead(jobs: StudyJobs, seconds: Seconds) -> dict[str, float]:
    """Return the length of the longest chain of jobs that begins with each job."""
    ahead: dict[str, float] = {}
    for key, job in reversed([*jobs.jobs.items()]):
        ahead[key] = seconds(job) + max((ahead[other] for other in jobs.dependents[key]), default=0.0)
    return ahead
