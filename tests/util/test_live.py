"""What a running script says about itself: written now and then, never in its way, gone at its end."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import fewseg.util.live as live_module
from fewseg.util.errors import UserError
from fewseg.util.live import LIVE, Live, read_live
from fewseg.util.log import ROOT as LOG


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose one entry is the time of the clock between writes."""
    now = [100.0]
    monkeypatch.setattr(live_module.time, "monotonic", lambda: now[0])
    return now


def test_the_first_is_written_at_once_and_the_next_after_five_seconds(
    tmp_path: Path, clock: list[float]
) -> None:
    live = Live(tmp_path)
    for now, epoch, shown in ((100.0, 1, 1), (104.9, 2, 1), (105.0, 3, 3), (109.0, 4, 3)):
        clock[0] = now
        live.show(work="training", epoch=epoch, best_score=None)
        facts = read_live(tmp_path)
        assert facts is not None and facts["epoch"] == shown
    assert facts.keys() == {"work", "epoch", "best_score", "updated", "host", "pid", "age"}
    assert (facts["host"], facts["pid"]) == (socket.gethostname(), os.getpid())
    assert abs(facts["updated"] - time.time()) < 60


def test_the_age_is_that_of_the_last_write(tmp_path: Path) -> None:
    assert read_live(tmp_path) is None
    Live(tmp_path).show(work="testing")
    os.utime(tmp_path / LIVE, (time.time() - 1000,) * 2)
    facts = read_live(tmp_path)
    assert facts is not None and 1000 <= facts["age"] < 1100
    os.utime(tmp_path / LIVE, (time.time() + 1000,) * 2)  # the clock of a file server is ahead
    assert (read_live(tmp_path) or {})["age"] == 0


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 100_000])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / LIVE).write_text(text)
    assert read_live(tmp_path) is None


@pytest.mark.parametrize("error", [None, UserError, KeyboardInterrupt], ids=str)
def test_the_file_goes_when_the_script_ends(tmp_path: Path, error: type[BaseException] | None) -> None:
    (tmp_path / LIVE).write_text(json.dumps({"epoch": 7}))
    live = Live(tmp_path)
    try:
        with live:
            assert read_live(tmp_path) is None  # it was that of a killed run
            live.show(epoch=1)
            assert (tmp_path / LIVE).is_file()
            if error:
                raise error
    except (UserError, KeyboardInterrupt):
        pass
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_stops_no_run(
    tmp_path: Path,
    clock: list[float],
    caplog: pytest.LogCaptureFixture,
    small_files: Callable[[int], AbstractContextManager],
) -> None:
    caplog.set_level(logging.DEBUG, logger=LOG)
    live = Live(tmp_path)
    with small_files(10):
        for clock[0] in (200.0, 300.0):
            live.show(epoch=1)
    assert [*tmp_path.iterdir()] == []
    (line,) = [record for record in caplog.records if record.name.startswith(LOG)]
    assert line.levelno == logging.DEBUG and LIVE in line.getMessage()
    clock[0] = 400.0
    live.show(epoch=2)  # there is space again
    assert (read_live(tmp_path) or {})["epoch"] == 2


def test_a_folder_that_is_gone_stays_gone(tmp_path: Path) -> None:
    with Live(tmp_path / "gone") as live:
        live.show(epoch=1)
    assert [*tmp_path.iterdir()] == []


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "is_main", lambda: False)
    with Live(tmp_path) as live:
        live.show(epoch=1)
        assert not (tmp_path / LIVE).exists()
