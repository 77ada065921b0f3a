"""Carry out one job: claim it, run its command, and write down how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewseg.engine.study.description.jobs import Job
from fewseg.engine.study.running.claim import Claim
from fewseg.engine.study.running.records import JobRecord

_ROOT = Path(__file__).resolve().parents[3]

_STANDALONE = ("--standalone",)
"""What torchrun is told where all processes are on one machine."""

_TAIL = 100_000
"""Bytes at the end of a log in which its last line is looked for."""


def command_of(job: Job, nodes: int = 1, launch: Sequence[str] = _STANDALONE) -> list[str]:
    """Return the command line of a job on this machine.

    Args:
        job: the job.
        nodes: number of machines that share its processes.
        launch: where it has several processes, arguments for torchrun besides their number on this machine.
    """
    return [sys.executable, *_arguments(job, _ROOT, nodes, launch)]


def shell_command(job: Job) -> list[str]:
    """Return the command line of a job as a user would write it in the project's folder."""
    return ["python", *_arguments(job, Path(), 1, _STANDALONE)]


def _arguments(job: Job, folder: Path, nodes: int, launch: Sequence[str]) -> list[str]:
    """Return what the interpreter is told: the script of a job, behind torchrun's for several processes."""
    script = [str(folder / job.script[0]), *job.script[1:]]
    if job.processes == 1:
        return script
    number = str(job.processes // nodes)
    return [str(folder / "tools/launch.py"), "--nproc-per-node", number, *launch, *script]


@dataclass(frozen=True)
class RunningJob:
    """A job whose command runs in a process of this machine.

    Attributes:
        job: the job.
        process: the process of its command.
    """

    job: Job
    process: subprocess.Popen[bytes]
    _record: JobRecord
    _claim: Claim
    _begun: float
    _log_start: int

    @classmethod
    def start(
        cls,
        job: Job,
        root: Path,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        due: Callable[[], bool] = lambda: True,
    ) -> RunningJob | None:
        """Claim a job and start its command; return None if another process has claimed it, or it is not due.

        Args:
            job: the job.
            root: the folder of the study.
            command: the command line.
            environment: variables to set besides those of this process.
            due: whether it must still be done; asked under the claim, since another process may just have
                ended it.
        """
        record = JobRecord.of(root, job)
        claim = Claim.take(record.folder)
        if claim is None:
            return None
        if not due():
            claim.release()
            return None
        begun = record.begin(job)
        with record.log.open("ab") as log:
            log.write(f"== {time.strftime('%Y-%m-%d %H:%M:%S')}: {' '.join(command)}\n".encode())
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                pass_fds=[claim.file],
                start_new_session=True,  # a signal to the study reaches the job once, through the study
            )
        return cls(job, process, record, claim, begun, start)

    def stop(self) -> None:
        """Ask the job to save what it has and to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def finish(self, done: bool, stopped: bool = False) -> str | None:
        """Write down how the job ended, give up the claim, and return its error in one line.

        Args:
            done: whether the files that the job gives are there.
            stopped: whether the study asked the job to stop, which is no error.
        """
        status = self.process.wait()
        error = None if done or stopped else self._error(status)
        self._record.end(self._begun, status, error)
        self._claim.release()
        return error

    def _error(self, status: int) -> str:
        if status < 0:
            return f"ended by {signal.Signals(-status).name}; it goes on when the study runs again"
        lines = self._last_lines()
        errors = [line for line in lines if line.startswith("error: ")]
        said = (errors or lines or [f"ended with status {status}"])[-1].removeprefix("error: ")
        return f"ended without its result: {said}" if status == 0 else said

    def _last_lines(self) -> list[str]:
        with self._record.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - _TAIL))
            text = log.read().decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]
