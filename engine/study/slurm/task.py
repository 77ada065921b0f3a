"""What runs on a node of a cluster: one job of a study, under its claim, which goes on after a requeue."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from submitit.core.utils import DelayedSubmission, UncompletedJobError

from fewseg.engine.setup.interrupt import Interrupted
from fewseg.engine.study.description.jobs import Job
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.running.state import is_done
from fewseg.engine.study.running.work import RunningJob
from fewseg.engine.study.slurm.allocation import WARNING, Allocation, without_warning
from fewseg.util.errors import UserError

FAILED = 1
"""Exit status of a task whose job failed, so that SLURM does not start what depends on it."""

POLL = 0.5
"""Seconds between two looks at the job and at the signals."""

SETTLED = 30.0
"""Seconds until a file written on one node is seen on all others, since NFS keeps listings of folders."""

LINGER = 5.0
"""Seconds after SIGTERM in which a warning may follow, which tells a preemption from a cancellation."""


class Task:
    """One job of a study; submitit stores it, and calls it on the node.

    Args:
        job: the job.
        jobs: all jobs of the study, of which those are kept that it needs.
        root: the folder of the study.
    """

    def __init__(self, job: Job, jobs: Mapping[str, Job], root: Path) -> None:
        self._job, self._jobs, self._root = job, _with_needs(job, jobs), root
        self._running: RunningJob | None = None
        self._received: set[int] = set()

    def __call__(self) -> None:
        """Carry out the job.

        If it fails, the process ends with status 1, and the error is in the job's record. On a warning of
        SLURM the job saves its state, and SLURM is asked to start it anew.
        """
        here = Allocation.here()
        if here.node > 0:
            sys.exit(here.follow(self._job, self._record))
        requeue = signal.getsignal(WARNING)  # submitit's, which calls ``checkpoint``
        for number in (WARNING, signal.SIGTERM):
            signal.signal(number, self._note)
        try:
            error = self._carry_out(here)
            self._linger(error)
        except _Warned:
            error = self._go_on_later(requeue)
        except Interrupted as stop:  # another process carries out the job, and writes its record
            error = str(stop)
        except UserError as failure:
            error = str(failure)
            self._record.fail(error)
        here.announce(self._record, status=FAILED if error else 0)
        if error is not None:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(FAILED)

    def checkpoint(self) -> DelayedSubmission:
        """Stop the job where it can be resumed, and return what SLURM starts anew; submitit calls this."""
        if self._running is not None:
            if signal.SIGTERM not in self._received:  # else SLURM has sent it to the job's processes as well
                self._running.stop()
            self._running.finish(self._is_done(), stopped=True)
            self._running = None
        return DelayedSubmission(Task(self._job, self._jobs, self._root))

    @property
    def _record(self) -> JobRecord:
        return JobRecord.of(self._root, self._job)

    def _carry_out(self, here: Allocation) -> str | None:
        """Carry out the job, or wait until another process has done so; return the error."""
        if self._is_done():
            return None
        self._require_needs()
        address = here.address()
        command, environment = here.command(self._job, address), here.environment(self._job)
        while True:
            with without_warning():
                running = RunningJob.start(
                    self._job, self._root, command, environment, due=lambda: not self._is_done()
                )
            if running is not None:
                break
            if self._is_done():
                return None
            self._wait()
            if signal.SIGTERM in self._received:
                raise Interrupted("stopped by SIGTERM")
        self._running = running
        here.announce(self._record, address=address)
        while running.process.poll() is None:
            self._wait()
        self._running = None
        return running.finish(self._is_done())

    def _is_done(self) -> bool:
        return is_done(self._job, self._jobs)

    def _require_needs(self) -> None:
        """Raise UserError if a job that this one needs is not done."""
        end = time.monotonic() + SETTLED
        for need in self._job.needs:
            while not is_done(self._jobs[need], self._jobs):
                if time.monotonic() > end:
                    raise UserError(f"needs {self._jobs[need].name}, which is not done; run the study again")
                self._wait()

    def _wait(self) -> None:
        """Wait for a moment; raise ``_Warned`` after a warning of SLURM."""
        time.sleep(POLL)
        if WARNING in self._received:
            raise _Warned

    def _linger(self, error: str | None) -> None:
        """After a SIGTERM that ended the job, wait whether a warning follows."""
        end = time.monotonic() + LINGER
        while error is not None and signal.SIGTERM in self._received and time.monotonic() < end:
            self._wait()

    def _go_on_later(self, requeue: object) -> str:
        """Save, have SLURM start this task anew, and end the process; return the error if SLURM refuses."""
        assert callable(requeue), "submitit has set its handler"
        try:
            requeue(WARNING, None)
            error = "submitit has not started it anew"
        except (UncompletedJobError, subprocess.SubprocessError) as failure:
            error = f"not started anew: {failure}"
        self._record.fail(f"{error}; it goes on when the study runs again")
        return error

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received.add(number)


class _Warned(Exception):
    """SLURM is about to end the task."""


def _with_needs(job: Job, jobs: Mapping[str, Job]) -> dict[str, Job]:
    """Return a job and all that it depends on, by their keys."""
    needed = {job.key: job}
    for need in job.needs:
        needed |= _with_needs(jobs[need], jobs)
    return needed
