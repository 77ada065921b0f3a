"""The task of a job on a node, without a cluster: what it waits for, and how it ends."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission, UncompletedJobError

from fewseg.engine.setup.run_path import run_key
from fewseg.engine.study.description.jobs import Job
from fewseg.engine.study.running.claim import Claim, is_claimed
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.slurm import task as slurm_task
from fewseg.engine.study.slurm.allocation import Allocation
from fewseg.engine.study.slurm.task import Task

SLOW = "import pathlib, sys, time; pathlib.Path('{root}/started').touch(); time.sleep(100)"


@pytest.fixture(autouse=True)
def _task_as_on_a_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the signals be as before, and nothing wait for other nodes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    monkeypatch.setattr(slurm_task, "SETTLED", 0.0)
    monkeypatch.setattr(slurm_task, "LINGER", 0.0)
    monkeypatch.setattr(slurm_task, "POLL", 0.02)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def runs(job: Job, root: Path, line: str) -> Job:
    """Return a job whose script is a line of Python."""
    path = root / "script.py"
    path.write_text(line)
    return replace(job, script=(str(path),))


def in_a_moment(action, condition) -> threading.Thread:
    """Do something as soon as a condition holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def error_of(task: Task, root: Path, job: Job) -> str | None:
    with pytest.raises(SystemExit) as ended:
        task()
    assert ended.value.code == slurm_task.FAILED
    return JobRecord.of(root, job).error()


def finish(job: Job) -> None:
    """Write the file by which a stub is done."""
    job.folder.mkdir(parents=True, exist_ok=True)
    none = dict.fromkeys(("base_learner", "mined_labels", "best_score", "seconds_a_step"))
    facts = {"key": run_key(job.config), "epochs": 1, "best_epoch": 0, "parameters": 1, "peak_gib": 0.1}
    (job.folder / "finished.json").write_text(
        json.dumps({**none, **facts, "weights": {}, "processes": 1, "versions": {}})
    )


def test_done_job_ends_at_once(stub, tmp_path: Path) -> None:
    job = stub(folder=tmp_path / "run")
    finish(job)
    Task(job, {job.key: job}, tmp_path)()
    assert JobRecord.of(tmp_path, job).attempts() == []


def test_job_of_another_process_is_waited_for_and_not_repeated(stub, tmp_path: Path) -> None:
    job = runs(stub(folder=tmp_path / "run"), tmp_path, "raise SystemExit('carried out twice')")
    record = JobRecord.of(tmp_path, job)
    claim = Claim.take(record.folder)

    def end() -> None:
        finish(job)
        claim.release()

    begun = time.monotonic()
    in_a_moment(end, lambda: time.monotonic() > begun + 0.5)
    Task(job, {job.key: job}, tmp_path)()
    assert record.attempts() == []
    assert not is_claimed(record.folder)


def test_job_whose_process_died_is_taken_over(stub, tmp_path: Path) -> None:
    job = runs(stub(folder=tmp_path / "run"), tmp_path, "print('error: taken over')")
    claim = Claim.take(JobRecord.of(tmp_path, job).folder)
    begun = time.monotonic()
    in_a_moment(claim.release, lambda: time.monotonic() > begun + 0.5)
    assert (
        error_of(Task(job, {job.key: job}, tmp_path), tmp_path, job) == "ended without its result: taken over"
    )


def test_missing_need_is_one_line(stub, tmp_path: Path, capsys) -> None:
    base = stub("base", folder=tmp_path / "base")
    job = stub("job", folder=tmp_path / "run", needs=("base",))
    error = error_of(Task(job, {"base": base, "job": job}, tmp_path), tmp_path, job)
    assert error == "needs stub base, which is not done; run the study again"
    assert capsys.readouterr().err == f"error: {error}\n"
    assert JobRecord.of(tmp_path, job).attempts() == []


def test_warned_job_is_stopped_and_returns_to_the_queue(stub, tmp_path: Path) -> None:
    job = runs(stub(folder=tmp_path / "run"), tmp_path, SLOW.format(root=tmp_path))
    task = Task(job, {job.key: job}, tmp_path)
    stored: list[DelayedSubmission] = []

    def requeue(number: int, frame: object) -> None:
        stored.append(task.checkpoint())
        sys.exit(-1)

    signal.signal(signal.SIGUSR2, requeue)
    in_a_moment(lambda: os.kill(os.getpid(), signal.SIGUSR2), (tmp_path / "started").exists)
    with pytest.raises(SystemExit) as ended:
        task()
    assert ended.value.code == -1
    record = JobRecord.of(tmp_path, job)
    assert [attempt.status for attempt in record.attempts()] == [-signal.SIGTERM]
    assert record.error() is None and not is_claimed(record.folder)
    finish(job)
    pickle.loads(pickle.dumps(stored[0])).result()  # what SLURM starts anew, and finds done


def test_job_that_is_not_started_anew_says_so(stub, tmp_path: Path) -> None:
    job = runs(stub(folder=tmp_path / "run"), tmp_path, SLOW.format(root=tmp_path))
    task = Task(job, {job.key: job}, tmp_path)

    def refuse(number: int, frame: object) -> None:
        task.checkpoint()
        raise UncompletedJobError("timed-out too many times")

    signal.signal(signal.SIGUSR2, refuse)
    in_a_moment(lambda: os.kill(os.getpid(), signal.SIGUSR2), (tmp_path / "started").exists)
    error = error_of(task, tmp_path, job)
    assert error == "not started anew: timed-out too many times; it goes on when the study runs again"


def test_job_does_not_see_the_warning(stub, tmp_path: Path) -> None:
    ignores = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('error: alive')"
    job = runs(stub(folder=tmp_path / "run"), tmp_path, ignores)
    assert error_of(Task(job, {job.key: job}, tmp_path), tmp_path, job) == "ended without its result: alive"


def test_other_nodes_do_their_share_when_the_first_one_says_so(stub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Allocation, "command", lambda self, job, address: ["touch", f"{tmp_path}/{address}"])
    job = stub(processes=2)
    record = JobRecord.of(tmp_path, job)
    first, other = (Allocation(7, 1, node, nodes=2, cores=1, names="n[1-2]") for node in (0, 1))
    Allocation(7, 0, 0, nodes=2, cores=1, names="").announce(record, status=0)  # of an earlier start

    def lead() -> None:
        first.announce(record, address="10.0.0.1")
        while not (tmp_path / "10.0.0.1").exists():
            time.sleep(0.02)
        first.announce(record, status=1)

    begun = time.monotonic()
    thread = in_a_moment(lead, lambda: time.monotonic() > begun + 0.5)
    assert other.follow(job, record) == 1
    thread.join()
    assert (tmp_path / "10.0.0.1").exists()


def test_processes_are_launched_on_every_node(stub) -> None:
    job = stub(processes=4)
    second = Allocation(12345, 0, 1, nodes=2, cores=6, names="n[1-2]")
    command = second.command(job, "10.0.0.1")
    assert command[2:12] == [
        *("--nproc-per-node", "2", "--nnodes", "2", "--node-rank", "1"),
        *("--master-addr", "10.0.0.1", "--master-port", "22345"),
    ]
    assert command[-2:] == ["workers", "3"]
    assert second.environment(job) == {"OMP_NUM_THREADS": "3"}
