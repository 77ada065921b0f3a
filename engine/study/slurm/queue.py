"""SLURM's queue: which jobs of a study it holds. Nothing here submits, so submitit need not be installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from fewseg.util.errors import UserError

_NEVER = "DependencyNeverSatisfied"
"""Reason of a job that SLURM is about to remove, because one that it depends on has failed."""

_SECONDS = 60
"""Time in which SLURM must answer."""


@dataclass(frozen=True)
class Queued:
    """A job in SLURM's queue.

    Attributes:
        state: its state, such as ``PENDING``.
        reason: why it does not run.
    """

    state: str
    reason: str

    @property
    def will_run(self) -> bool:
        """Whether it runs, or will: SLURM has not given it up."""
        return self.reason != _NEVER

    @property
    def is_ending(self) -> bool:
        """Whether its processes have ended and SLURM cleans up, or is about to start it anew."""
        return self.state == "COMPLETING"


Queue = Mapping[str, Queued]
"""Id of a SLURM job, with that of the task in an array such as ``123_4`` -> the job."""


def read_queue() -> Queue:
    """Return what SLURM runs, and what waits for it.

    Raises:
        UserError: SLURM is not installed here, or does not answer.
    """
    lines = ask_slurm("squeue", "--noheader", "--array", "--format=%i|%T|%r").splitlines()
    rows = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    return {number.strip(): Queued(state.strip(), reason.strip()) for number, state, reason in rows}


def ask_slurm(*command: str) -> str:
    """Return what a command of SLURM prints.

    Raises:
        UserError: there is no such command here, or it failed.
    """
    require_slurm(command[0])
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: SLURM has not answered in {_SECONDS} seconds; try later") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise UserError(f"{command[0]}: {said[-1]}; check that SLURM is running")
    return done.stdout


def require_slurm(command: str) -> None:
    """Raise UserError if a command of SLURM is not installed here."""
    if shutil.which(command) is None:
        raise UserError(
            f"{command}: no such command, so there is no SLURM here; use a login node of the cluster, "
            "or --on local"
        )
