"""Two processes on one study: no job runs twice, and one finishes what the other leaves when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fewseg.engine.study.description.jobs import StudyJobs

from .conftest import ROOT
from .sleeping_jobs import JOURNAL

STUDY = f"""
config: "{ROOT}/config/pascal/{{method}}_{{backbone}}.yaml"
grid: {{method: [bam, pfenet, msanet], backbone: [resnet50], fold: [0, 1, 2, 3], shot: [1, 5], seed: [1, 2]}}
"""


@pytest.fixture
def jobs(expand, tmp_path: Path) -> StudyJobs:
    (tmp_path / "exp").mkdir()
    return expand(f"{STUDY}folder: {tmp_path}/exp")


def start(jobs: StudyJobs, owner: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.engine.study.sleeping_jobs", str(jobs.study.path), owner]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def journal(jobs: StudyJobs) -> list[list[str]]:
    path = jobs.study.root / JOURNAL
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def until(met: Callable[[], bool], processes: list[subprocess.Popen[str]]) -> None:
    """Wait until a condition is met; fail if a process ends before, or after two minutes."""
    end = time.monotonic() + 120
    while not met():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.01)


def halt_job_of(owner: str, jobs: StudyJobs) -> list[str]:
    """Stop a job before its end and return its line in the journal; nothing if the job was quicker."""
    for line in reversed(journal(jobs)):
        if line[0] == "begin" and line[2] == owner and ["end", line[1]] not in journal(jobs):
            with suppress(ProcessLookupError):
                os.killpg(int(line[3]), signal.SIGSTOP)
                if ["end", line[1]] not in journal(jobs):
                    return line
                os.killpg(int(line[3]), signal.SIGCONT)
    return []


def check(jobs: StudyJobs, lines: list[list[str]], twice: set[str]) -> None:
    """Check that every job ended once and began once, except for ``twice``, after all that it needs."""
    begun, ended = Counter(), set()
    for what, key, *_ in lines:
        if what == "begin":
            assert ended.issuperset(jobs.jobs[key].needs)
            begun[key] += 1
        else:
            assert key not in ended
            ended.add(key)
    assert ended == jobs.jobs.keys()
    assert begun == Counter({key: 2 if key in twice else 1 for key in jobs.jobs})


def test_no_job_runs_twice(jobs: StudyJobs) -> None:
    assert len(jobs.jobs) == 100
    processes = [start(jobs, owner) for owner in ("one", "two")]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    lines = journal(jobs)
    check(jobs, lines, twice=set())
    assert min(Counter(line[2] for line in lines if line[0] == "begin").values()) >= 5  # both took part


def test_one_finishes_what_the_other_leaves_when_it_is_killed(jobs: StudyJobs) -> None:
    one, two = processes = [start(jobs, owner) for owner in ("one", "two")]

    halted: list[str] = []

    def halted_one() -> bool:
        halted[:] = halt_job_of("one", jobs) if len(journal(jobs)) > 50 else []
        return bool(halted)

    until(halted_one, processes)
    one.kill()
    one.wait()
    os.killpg(int(halted[3]), signal.SIGKILL)  # one of its jobs too; the others go on without it
    said, _ = two.communicate(timeout=300)
    assert two.returncode == 0, said
    lines = journal(jobs)
    check(jobs, lines, twice={halted[1]})
    assert [line[2] for line in lines if line[:2] == ["begin", halted[1]]] == ["one", "two"]
