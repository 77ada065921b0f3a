"""Carry out jobs on this machine: one card each, and the cores shared out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import torch

from fewseg.engine.setup.interrupt import StopRequest
from fewseg.engine.study.description.jobs import Job, StudyJobs
from fewseg.engine.study.progress.overview import overview_of
from fewseg.engine.study.running.claim import is_claimed
from fewseg.engine.study.running.pool import Ended, Pool, Seconds
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.running.state import done_jobs, is_done
from fewseg.engine.study.running.work import RunningJob, command_of
from fewseg.util.log import get_log

_POLL = 0.5
"""Seconds between two looks at the running jobs."""


def usual_slots() -> int:
    """Return the number of cards of this machine: its GPUs, or 1."""
    return max(torch.cuda.device_count(), 1)


def run_local(jobs: StudyJobs, slots: int | None, seconds: Seconds) -> dict[str, str]:
    """Carry out the jobs of a study that are not done, and return the errors of those that failed.

    Args:
        jobs: the jobs.
        slots: number of cards, or of jobs at a time without one; None: the number of GPUs, or 1.
        seconds: expected duration of a job.

    Raises:
        UserError: a job needs more cards than there are.
        Interrupted: on a request to stop; the running jobs have saved what they had.
    """
    slots = slots or usual_slots()
    with StopRequest() as stop:
        launcher = _Processes(jobs, stop, slots)
        pool = Pool(jobs, done_jobs(jobs), slots, launcher, seconds)
        try:
            pool.run()
        finally:
            launcher.stop()
    return pool.errors


class _Processes:
    """A launcher that starts every job as a process of this machine."""

    def __init__(self, jobs: StudyJobs, stop: StopRequest, slots: int) -> None:
        self._jobs, self._stop, self._gpus = jobs, stop, torch.cuda.device_count()
        self._cores = max(1, len(os.sched_getaffinity(0)) // slots)
        self._running: dict[str, RunningJob] = {}
        self._slots = slots
        self._failed = {key for key, job in jobs.jobs.items() if self._record(job).error() is not None}
        self._log = get_log("study")

    def start(self, job: Job, cards: tuple[int, ...]) -> bool:
        environment = {"OMP_NUM_THREADS": str(self._cores)}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(str(card % self._gpus) for card in cards)
        command = with_cores(command_of(job), job, self._cores)
        running = RunningJob.start(
            job, self._jobs.study.root, command, environment, due=lambda: self._ended(job) is None
        )
        if running is not None or is_claimed(self._record(job).folder):
            self._failed.discard(job.key)  # somebody has taken it up
        if running is None:
            return False
        self._log.info("%s %s: started", job.kind.value, job.name)
        self._running[job.key] = running
        return True

    def wait(self) -> Mapping[str, Ended]:
        self._stop.check()
        ended = {key: run for key, run in self._running.items() if run.process.poll() is not None}
        if not ended:
            time.sleep(_POLL)
        return {key: Ended(self._finish(key)) for key in ended}

    def elsewhere(self, job: Job) -> Ended | None:
        if is_claimed(self._record(job).folder):
            return None
        return self._ended(job) or Ended(None, due=True)

    def _ended(self, job: Job) -> Ended | None:
        """Return how a job ended that nobody carries out; None if it must be started.

        A job that had failed before this process began is taken up again, once.
        """
        if is_done(job, self._jobs.jobs):
            return Ended(None)
        error = None if job.key in self._failed else self._record(job).error()
        return None if error is None else Ended(error)

    def _record(self, job: Job) -> JobRecord:
        return JobRecord.of(self._jobs.study.root, job)

    def stop(self) -> None:
        """Ask all running jobs to save and to end, and wait for them."""
        for run in self._running.values():
            run.stop()
        for run in self._running.values():
            run.process.wait()
            run.finish(is_done(run.job, self._jobs.jobs), stopped=True)
            self._log.info("%s %s: stopped", run.job.kind.value, run.job.name)

    def _finish(self, key: str) -> str | None:
        run = self._running.pop(key)
        error = run.finish(is_done(run.job, self._jobs.jobs))
        outcome = "done" if error is None else f"failed: {error}"
        far = overview_of(self._jobs, self._slots).in_words
        self._log.info("%s %s: %s (%s)", run.job.kind.value, run.job.name, outcome, far)
        return error


def with_cores(command: list[str], job: Job, cores: int) -> list[str]:
    """Return the command of a job with at most as many loader processes as it has cores."""
    workers = min(job.config.Train.workers, cores)
    return [*command, "workers", str(workers)] if workers < job.config.Train.workers else command
