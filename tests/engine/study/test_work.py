"""One job: its claim, its log, and its error in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fewseg.engine.study.running.claim import is_claimed
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.running.work import RunningJob, command_of, shell_command


def python(line: str) -> list[str]:
    return [sys.executable, "-c", line]


def test_log_and_seconds_are_kept(stub, tmp_path: Path) -> None:
    job = stub()
    record = JobRecord.of(tmp_path, job)
    running = RunningJob.start(job, tmp_path, python("print('working')"))
    assert running is not None
    assert RunningJob.start(job, tmp_path, python("print('twice')")) is None
    assert running.finish(done=running.process.wait() == 0) is None
    assert not is_claimed(record.folder)
    assert "working" in record.log.read_text() and "twice" not in record.log.read_text()
    (attempt,) = record.attempts()
    assert attempt.status == 0
    assert attempt.seconds is not None and attempt.seconds > 0
    assert record.error() is None


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "print('x'); print('error: no data; add some'); print('more'); raise SystemExit(2)",
            "no data; add some",
        ),
        ("print('first'); print('the reason'); raise SystemExit(3)", "the reason"),
        ("raise SystemExit(4)", "ended with status 4"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "ended by SIGKILL; it goes on when the study",
        ),
        ("print('nothing left')", "ended without its result: nothing left"),
    ],
)
def test_failure_is_one_line_and_is_forgotten_by_the_next_attempt(stub, tmp_path, line, error) -> None:
    record = JobRecord.of(tmp_path, stub())
    running = RunningJob.start(stub(), tmp_path, python(line))
    said = running.finish(done=False)
    assert said is not None and said.startswith(error) and "\n" not in said
    assert record.error() == said
    again = RunningJob.start(stub(), tmp_path, python("print('error: of the second attempt')"))
    assert record.error() is None
    assert again.finish(done=True) is None
    assert len(record.attempts()) == 2


def test_error_of_an_earlier_attempt_is_not_told_again(stub, tmp_path: Path) -> None:
    RunningJob.start(stub(), tmp_path, python("print('error: old')")).finish(done=False)
    assert RunningJob.start(stub(), tmp_path, python("raise SystemExit(5)")).finish(done=False) == (
        "ended with status 5"
    )


def test_job_that_is_not_due_is_not_started_and_free(stub, tmp_path: Path) -> None:
    assert RunningJob.start(stub(), tmp_path, python("print('twice')"), due=lambda: False) is None
    record = JobRecord.of(tmp_path, stub())
    assert record.attempts() == []
    assert not is_claimed(record.folder)


def test_environment_reaches_the_command(stub, tmp_path: Path) -> None:
    command = python("import os; print('card', os.environ['CUDA_VISIBLE_DEVICES'])")
    RunningJob.start(stub(), tmp_path, command, {"CUDA_VISIBLE_DEVICES": "3"}).finish(done=True)
    assert "card 3" in JobRecord.of(tmp_path, stub()).log.read_text()


def test_several_processes_are_launched_together(stub) -> None:
    assert shell_command(stub()) == ["python", "train.py"]
    command = command_of(stub(processes=2))
    assert command[1].endswith("tools/launch.py")
    assert command[2:5] == ["--nproc-per-node", "2", "--standalone"]
    assert shell_command(stub(processes=2))[:2] == ["python", "tools/launch.py"]
