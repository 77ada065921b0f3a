"""The lock on a folder: one owner, named to the others, and none after its death."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fewseg.util.errors import UserError
from fewseg.util.lock import OWNER, lock_folder

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from fewseg.util.lock import lock_folder
with lock_folder(sys.argv[1], "training"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path, code: str = HOLD) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_refusal_names_work_process_host_and_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder) as process, pytest.raises(UserError) as refused, lock_folder(folder, "test"):
        pass
    said = str(refused.value)
    assert str(tmp_path / "run") in said and "training" in said and "\n" not in said
    assert f"process {process.pid} on {socket.gethostname()}" in said
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d; wait", said)


def test_crashed_owner_loses_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lock_folder(tmp_path, "training"):
            assert f'"process": {os.getpid()}' in (tmp_path / OWNER).read_text()


def test_killed_owner_whose_worker_lives_on_for_a_moment(tmp_path: Path) -> None:
    code = """
import os, sys, time
from fewseg.util.lock import lock_folder
with lock_folder(sys.argv[1], "training"):
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""
    with holder(tmp_path, code) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lock_folder(tmp_path, "training"):
            pass


def test_lock_is_free_after_its_body_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock_folder(tmp_path, "test"):
        raise RuntimeError
    assert not (tmp_path / OWNER).exists()
    refused = pytest.raises(UserError, match="in use: test by process")
    with lock_folder(tmp_path, "test"), refused, lock_folder(tmp_path, "training"):
        pass
    with lock_folder(tmp_path, "training"):
        pass


def test_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="a file is in the way"), lock_folder(folder, "test"):
            pass


def test_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch, caplog) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fewseg.util.lock.FileLock.acquire", refuse)
    with lock_folder(tmp_path, "training"):
        pass
    assert "grants no locks (No locks available" in caplog.text.replace("[Errno 37] ", "")
