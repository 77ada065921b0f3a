"""A job is claimed by one process, and free when that has died, however it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from fewseg.engine.study.running.claim import Claim, is_claimed, owner_of

WAIT = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path / "job")
    claim = Claim.take(tmp_path / "job")
    assert claim is not None
    assert is_claimed(tmp_path / "job")
    assert Claim.take(tmp_path / "job") is None
    assert owner_of(tmp_path / "job")["process"] == os.getpid()
    claim.release()
    assert not is_claimed(tmp_path / "job")
    again = Claim.take(tmp_path / "job")
    assert again is not None
    again.release()


def test_claim_lives_as_long_as_the_process_that_inherited_it(tmp_path: Path) -> None:
    claim = Claim.take(tmp_path)
    assert claim is not None
    with subprocess.Popen(WAIT, stdin=subprocess.PIPE, pass_fds=[claim.file]) as heir:
        claim.release()  # as if the starter had been killed
        assert is_claimed(tmp_path)
        assert Claim.take(tmp_path) is None
        heir.send_signal(signal.SIGKILL)
        heir.wait()
        assert not is_claimed(tmp_path)


def test_asking_does_not_keep_others_out(tmp_path: Path) -> None:
    for _ in range(50):
        assert not is_claimed(tmp_path)
        claim = Claim.take(tmp_path)
        assert claim is not None
        claim.release()
