"""An exclusive lock on a folder, so that two processes never write into the same one."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fewseg.util.distributed import from_main, is_main
from fewseg.util.errors import UserError
from fewseg.util.files import write_text
from fewseg.util.log import get_log

LOCK, OWNER = ".fewseg.lock", ".fewseg.owner.json"
"""Files of a locked folder: the one that the kernel locks, which stays, and one about its owner."""

ORPHANS = 10.0
"""Seconds for the loader workers of a killed process to end, for as long as they may hold its lock."""


@contextmanager
def lock_folder(folder: str | Path, work: str, *, wait: float = 0) -> Iterator[None]:
    """Keep other processes that ask for this lock out of ``folder`` while the body runs.

    The kernel holds the lock (``flock``) for the process: however the process ends, by a crash, by
    ``kill -9`` or with its machine, the lock is free again. On NFS Linux turns ``flock`` into a lock at the
    server, which holds between machines; the server frees a crashed machine's lock when its lease expires,
    after about 90 seconds by default. Mounts with ``nolock`` or ``local_lock`` lock within one machine only.
    Where a file system does not support locks, the body runs with a warning.

    Under torchrun the main process takes the lock, and a refusal is raised in every process. All processes
    must enter together. A process that holds the lock is itself refused a second one.

    Args:
        folder: it is made where it does not exist.
        work: the work of the body, for the message: "training".
        wait: seconds to wait for another process.

    Raises:
        UserError: another process holds the lock (the message names work, process, host and start), or
            nothing can be written in the folder.
    """
    folder = Path(folder)
    lock, refusal = None, None
    if is_main():
        try:
            lock = _acquire(folder, work, wait)
        except UserError as error:
            refusal = str(error)
    refusal = from_main(refusal)
    if refusal is not None:
        raise UserError(refusal)
    try:
        yield
    finally:
        if lock is not None:
            (folder / OWNER).unlink(missing_ok=True)
            lock.release()


def is_locked(folder: str | Path) -> bool:
    """Return whether a process has locked a folder, or locks cannot be asked about there."""
    try:
        file = os.open(Path(folder) / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _acquire(folder: Path, work: str, wait: float) -> FileLock | None:
    """Take the lock and write down its owner; return None where the file system does not support locks."""
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            lock.acquire(timeout=ORPHANS if _is_dead(_owner(folder)) else 0)
    except Timeout:
        raise UserError(_refusal(folder)) from None
    except PermissionError as failure:
        raise UserError(f"{folder}: nothing can be written there; choose another folder") from failure
    except (FileExistsError, NotADirectoryError) as failure:
        raise UserError(f"{folder}: a file is in the way; choose another folder") from failure
    except (OSError, NotImplementedError) as failure:
        get_log("lock").warning(
            "%s: the file system grants no locks (%s); see to it that one process alone writes there",
            *(folder, failure),
        )
        return None
    facts = {
        "work": work,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
    }
    try:
        write_text(folder / OWNER, json.dumps(facts))
    except UserError:
        lock.release()
        raise
    return lock


def _refusal(folder: Path) -> str:
    facts = _owner(folder)
    what, host, process, since = (facts.get(key, "?") for key in ("work", "host", "process", "since"))
    owner = f"{what} by process {process} on {host} since {since}" if facts else "another process"
    return f"{folder}: in use: {owner}; wait until it ends, stop it, or choose another folder"


def _owner(folder: Path) -> dict[str, Any]:
    """Return the facts about the owner of the lock; an empty dict where they are not written yet."""
    try:
        facts = json.loads((folder / OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Return whether the owner was a process of this machine that has ended."""
    process = owner.get("process")
    if owner.get("host") != socket.gethostname() or not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)  # sends no signal, but fails where there is no such process
    except (OSError, OverflowError) as failure:
        return isinstance(failure, ProcessLookupError)
    return False
