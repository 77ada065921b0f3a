"""Several processes end as one would: the error is one line, the last one, and the status is the script's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import os, signal, sys, time
import torch
from engine.interrupt import StopRequest
from engine.script import run_script
from util import distributed
from util.errors import DataError

def main():
    distributed.start()
    kind, second = sys.argv[1], distributed.rank() == 1
    with StopRequest() as stop:
        while True:
            stop.check_together()
            print("ready", flush=True)
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


@pytest.mark.slow
def test_torchrun_reports_the_error_as_the_cause(tmp_path):
    running = start(tmp_path, "second", TORCHRUN)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "b.png: the image is corrupt" in said.partition("Root Cause")[2]
