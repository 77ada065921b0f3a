"""Several processes end as one would: the error is one line, the last one, and the status is the script's."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from torch.distributed import DistBackendError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from fewseg.engine.setup.interrupt import Interrupted, StopRequest
from fewseg.engine.setup.script import LAUNCHED, run_script
from fewseg.util import distributed
from fewseg.util.errors import DataError
from tools import launch

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import os, signal, sys, time
import torch
from fewseg.engine.setup.interrupt import Interrupted, StopRequest
from fewseg.engine.setup.script import run_script
from fewseg.util import distributed
from tools import launch
from fewseg.util.errors import DataError

def main():
    distributed.start()
    kind, second = sys.argv[1], distributed.rank() == 1
    with StopRequest() as stop:
        while True:
            stop.check_together()
            os.write(1, b"ready\\n")  # at once, as two processes write
            if kind == "both" or (kind == "second" and second):
                raise DataError("b.png: the image is corrupt")
            if kind == "killed" and second:
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "fault" and second:
                raise KeyError("a fault in the code")
            if kind == "fine":
                return
            time.sleep(0.1)

run_script(main)
"""

LAUNCH = ("tools/launch.py",)
TORCHRUN = ("-m", "torch.distributed.run")


def start(folder: Path, kind: str, launcher: tuple[str, ...] = LAUNCH) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *launcher, "--nproc-per-node", "2", "--standalone", str(script), kind],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("kind", "status", "last"),
    [
        pytest.param("fine", 0, None, marks=pytest.mark.slow),
        pytest.param("both", 2, "error: b.png: the image is corrupt", marks=pytest.mark.slow),
        ("second", 2, "error: b.png: the image is corrupt"),
        ("killed", 137, "error: process 1 was ended by SIGKILL"),
        pytest.param(
            *(
                "fault",
                1,
                "error: process 1 ended with status 1; the reason stands above or on another machine",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_error_and_status_are_those_of_the_process_that_failed_first(tmp_path, kind, status, last):
    running = start(tmp_path, kind)
    _, said = running.communicate(timeout=120)
    lines = [line for line in said.splitlines() if "[Gloo]" not in line]
    assert running.returncode == status, said
    assert lines[-1:] == ([last] if last else []), said
    assert said.count("error: ") == bool(last)
    assert ("KeyError: 'a fault in the code'" in said) == ("Traceback" in said) == (kind == "fault")


def test_a_stop_is_one_line_with_the_status_of_a_stopped_script(tmp_path):
    running = start(tmp_path, "endless")
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert said.splitlines()[-1] == "stopped by SIGTERM" and said.count("stopped") == 1


@pytest.mark.parametrize(
    ("first", "second", "status", "said"),
    [
        ((3, None), (-15, {"message": "no such file", "status": 2}), 2, "no such file"),
        ((3, None), (-9, None), 137, "process 1 was ended by SIGKILL"),
        ((-15, None), (1, None), 1, "process 1 ended with status 1; the reason stands above"),
        ((1, {"message": "no such file", "status": 2}), (1, None), 2, "no such file"),
        (
            (3, {"message": "another had ended", "status": 3}),
            (-9, None),
            137,
            "process 1 was ended by SIGKILL",
        ),
        ((3, {"message": "another had ended", "status": 3}), (-15, None), 3, "another had ended"),
    ],
)
def test_the_failure_that_caused_the_others_is_told(
    first, second, status, said, tmp_path, monkeypatch, capsys
):
    failures = {}
    for number, (code, facts) in enumerate((first, second)):
        file = tmp_path / f"{number}.json"
        if facts:
            message = {"message": facts["message"], "extraInfo": {"timestamp": "1"}}
            file.write_text(json.dumps({**facts, "message": message}))
        failures[number] = ProcessFailure(number, 1, code, str(file))

    def fail(_: object) -> None:
        raise ChildFailedError("script.py", failures)

    monkeypatch.setattr("torch.distributed.run.run", fail)
    monkeypatch.setattr(logging, "disable", lambda _: None)
    monkeypatch.setenv(LAUNCHED, "1")  # set by main, and taken back with the test
    assert launch.main(["script.py"]) == status
    assert said in capsys.readouterr().err


def broken_off() -> None:
    raise RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:29500")


def misconfigured() -> None:
    raise DistBackendError("NCCL error: no route\nto host")


@pytest.mark.parametrize(
    ("fails", "launched", "said"),
    [
        (broken_off, False, "Connection closed by peer"),
        (broken_off, True, None),
        (misconfigured, True, "NCCL error: no route to host"),
    ],
)
def test_a_lost_connection_is_one_line_unless_another_process_says_why(
    fails, launched, said, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    if launched:
        monkeypatch.setenv(LAUNCHED, "1")
    with pytest.raises(SystemExit) as ended:
        run_script(fails)
    shown = capsys.readouterr().err
    assert ended.value.code == 3 and shown.count("\n") == bool(said)
    assert said is None or said in shown


def test_a_process_hands_over_that_another_one_had_ended(monkeypatch, capsys, tmp_path):
    class Watch:
        def lost(self, patience: float = 0) -> int:
            return 1

        def leave(self) -> None:
            raise AssertionError("its work is not done")

    def validate() -> None:
        with StopRequest() as stop:
            stop.check()

    file = tmp_path / "error.json"
    monkeypatch.setattr(distributed, "_watches", [Watch()])
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    monkeypatch.setenv(LAUNCHED, "1")
    with pytest.raises(SystemExit) as ended:
        run_script(validate)
    told = json.loads(file.read_text())
    assert ended.value.code == told["status"] == 3 and not capsys.readouterr().err
    line = "process 0 ended because process 1 had ended; the reason stands where that one ran"
    assert told["message"]["message"] == line


@pytest.mark.parametrize("error", [None, Interrupted("stopped by SIGTERM"), DataError("b.png: corrupt")])
def test_a_process_takes_leave_only_when_its_work_is_done(error, monkeypatch):
    left = []

    class Watch:
        def leave(self) -> None:
            left.append(1)

    def main() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(distributed, "_watches", [Watch()])
    with suppress(SystemExit):
        run_script(main)
    assert bool(left) == (error is None)


def wrong() -> None:
    raise DataError("b.png: the image is corrupt")


@pytest.mark.parametrize(("size", "printed"), [(1000, 0), (0, 1)])
def test_an_error_is_printed_where_it_cannot_be_handed_over(
    size, printed, monkeypatch, capsys, tmp_path, small_files
):
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    monkeypatch.setenv(LAUNCHED, "1")
    with small_files(size), pytest.raises(SystemExit) as ended:
        run_script(wrong)
    assert ended.value.code == 2 and file.exists() == (not printed)
    assert capsys.readouterr().err.count("error: b.png: the image is corrupt\n") == printed


@pytest.mark.slow
def test_torchrun_reports_the_error_as_the_cause(tmp_path):
    running = start(tmp_path, "second", TORCHRUN)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "b.png: the image is corrupt" in said.partition("Root Cause")[2]
