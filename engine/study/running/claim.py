"""The claim on a job: a lock that its owner loses when it dies, on one machine and between machines.

The kernel holds the lock (``flock``) for an open file. The process that carries out the job inherits the
open file, so the job stays claimed while any process of it lives, even if its starter was killed, and is free
when the last one has ended. On NFS Linux turns ``flock`` into a lock at the server, which frees the lock of a
crashed machine when its lease expires, after about 90 seconds by default.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from fewseg.util.errors import UserError

_LOCK = "claim"


class Claim:
    """A claimed job; see ``take``."""

    def __init__(self, file: int) -> None:
        self.file = file
        """The descriptor of the open file, which the processes of the job inherit."""

    @classmethod
    def take(cls, folder: Path) -> Claim | None:
        """Claim the job of a folder; None if another process has claimed it.

        Raises:
            UserError: nothing can be written in the folder, or the file system grants no locks.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as failure:
            raise UserError(
                f"{folder}: cannot be written ({failure.strerror}); choose another folder"
            ) from failure
        if not _lock(file, folder):
            os.close(file)
            return None
        facts = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        }
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(facts).encode(), 0)
        return cls(file)

    def release(self) -> None:
        """Give the claim up; processes of the job that still run keep it."""
        os.close(self.file)


def is_claimed(folder: Path) -> bool:
    """Return whether a living process has claimed the job of a folder."""
    try:
        file = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(file, folder, fcntl.LOCK_SH)
    finally:
        os.close(file)


def owner_of(folder: Path) -> dict[str, Any]:
    """Return host, process, SLURM job and start of the last claim; an empty dict where there is none."""
    try:
        facts = json.loads((folder / _LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _lock(file: int, folder: Path, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as failure:
        raise UserError(
            f"{folder}: the file system grants no locks ({failure.strerror}), so two processes could carry "
            "out the same job; name a folder on another one"
        ) from failure
    return True
