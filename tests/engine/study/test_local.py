"""Jobs on one machine: a failure is taken up by the next run, once, and what others ended is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fewseg.engine.setup.interrupt import StopRequest
from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.running import local
from fewseg.engine.study.running.claim import Claim
from fewseg.engine.study.running.pool import Ended
from fewseg.engine.study.running.records import JobRecord

from .conftest import PLAIN

FULL = Ended("no space on the disk")


@pytest.fixture
def jobs(expand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyJobs:
    """A study whose trainings of PFENet fail while there is a file ``full``; its other jobs succeed."""
    jobs = expand(f"{PLAIN}folder: {tmp_path}/exp")

    def command(job: Job) -> list[str]:
        fails = job.kind is Kind.TRAIN and job.config.Method.arch == "pfenet"
        said = f"test ! -e {tmp_path}/full || {{ echo 'error: {FULL.error}'; exit 2; }};" if fails else ""
        return ["sh", "-c", f"{said} : > {tmp_path}/{job.key}"]

    monkeypatch.setattr(local, "command_of", command)
    monkeypatch.setattr(local, "is_done", lambda job, _: (tmp_path / job.key).exists())
    monkeypatch.setattr(
        local, "done_jobs", lambda jobs: {key for key in jobs.jobs if (tmp_path / key).exists()}
    )
    monkeypatch.setattr(local, "_POLL", 0.01)
    return jobs


def attempts(jobs: StudyJobs) -> list[int]:
    return [len(JobRecord.of(jobs.study.root, job).attempts()) for job in jobs.jobs.values()]


def test_failures_are_reported_and_taken_up_by_the_next_run(jobs: StudyJobs, tmp_path: Path) -> None:
    failing = {
        key for key, job in jobs.jobs.items() if job.kind is Kind.TRAIN and job.config.Method.arch == "pfenet"
    }
    (tmp_path / "full").touch()
    errors = local.run_local(jobs, 4, lambda job: 1.0)
    assert errors == dict.fromkeys(failing, FULL.error)
    tests = {test for key in failing for test in jobs.dependents[key]}
    ran = {key for key, number in zip(jobs.jobs, attempts(jobs), strict=True) if number}
    assert ran == jobs.jobs.keys() - tests
    (tmp_path / "full").unlink()
    assert local.run_local(jobs, 4, lambda job: 1.0) == {}
    assert dict(zip(jobs.jobs, attempts(jobs), strict=True)) == {
        key: 2 if key in failing else 1 for key in jobs.jobs
    }


def test_what_another_process_ended_is_not_started(jobs: StudyJobs, tmp_path: Path) -> None:
    done, failed, failed_before, gone = [*jobs.jobs.values()][:4]
    for job in (failed, failed_before, done, gone):
        JobRecord.of(jobs.study.root, job).folder.mkdir(parents=True)
    before = JobRecord.of(jobs.study.root, failed_before)
    before.end(before.begin(failed_before), 2, FULL.error)
    launcher = local._Processes(jobs, StopRequest(), 4)
    (tmp_path / done.key).touch()
    record = JobRecord.of(jobs.study.root, failed)
    record.end(record.begin(failed), 2, FULL.error)
    assert not launcher.start(done, (0,))
    assert launcher.elsewhere(done) == Ended(None)
    assert not launcher.start(failed, (0,))
    assert launcher.elsewhere(failed) == FULL
    assert launcher.elsewhere(gone) == Ended(None, due=True)
    assert launcher.start(failed_before, (0,))
    launcher.stop()


def test_old_failure_that_another_process_has_taken_up_counts_if_it_fails_again(jobs: StudyJobs) -> None:
    job = next(iter(jobs.jobs.values()))
    record = JobRecord.of(jobs.study.root, job)
    record.folder.mkdir(parents=True)
    record.end(record.begin(job), 2, "an older error")
    launcher = local._Processes(jobs, StopRequest(), 4)
    claim = Claim.take(record.folder)
    assert claim is not None
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[claim.file]
    ) as other:
        begun = record.begin(job)
        assert not launcher.start(job, (0,))
        assert launcher.elsewhere(job) is None
        record.end(begun, 2, FULL.error)
        claim.release()
        assert launcher.elsewhere(job) is None  # the process of the job still lives
        other.kill()
    assert launcher.elsewhere(job) == FULL
