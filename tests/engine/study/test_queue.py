"""What SLURM's queue says about a job, asked once for all, and never where nothing was submitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.engine.study.description.jobs import StudyJobs
from fewseg.engine.study.description.study_file import StudyFile
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.running.state import State, states_of
from fewseg.engine.study.slurm.queue import ask_slurm, read_queue
from fewseg.util.errors import UserError


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what puts a program ``squeue`` first in the path, which prints ``text`` and counts its calls."""

    def write(text: str, status: int = 0) -> Path:
        calls = tmp_path / "calls"
        program = tmp_path / "bin/squeue"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho called >> '{calls}'\ncat <<END\n{text}\nEND\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        return calls

    return write


@pytest.fixture
def study(stub, tmp_path: Path) -> StudyJobs:
    jobs = {key: stub(key, tmp_path / key) for key in ("a", "b", "c")}
    return StudyJobs(StudyFile(path=tmp_path / "x.yaml", config="x", grid={}, folder=str(tmp_path)), jobs, [])


def record(study: StudyJobs, key: str) -> JobRecord:
    return JobRecord.of(study.study.root, study.jobs[key])


def test_queue_is_asked_once_for_all_jobs(study, squeue) -> None:
    calls = squeue("12_0|PENDING|Priority\n12_1|RUNNING|None\n7|PENDING|Dependency")
    for key, number in (("a", "12_0"), ("b", "7"), ("c", "99")):
        record(study, key).submitted(number)
    assert states_of(study) == {"a": State.QUEUED, "b": State.QUEUED, "c": State.READY}
    assert calls.read_text().splitlines() == ["called"]


def test_slurm_is_not_asked_about_a_study_that_was_never_submitted(study, squeue) -> None:
    calls = squeue("12_0|PENDING|Priority")
    assert {*states_of(study).values()} == {State.READY}
    assert not calls.exists()


def test_job_that_slurm_gave_up_is_not_queued(study, squeue) -> None:
    squeue("1|PENDING|DependencyNeverSatisfied\n2|COMPLETING|None\n3|COMPLETING|None")
    for key, number in (("a", "1"), ("b", "2"), ("c", "3")):
        record(study, key).submitted(number)
    record(study, "c").fail("no data")
    assert states_of(study) == {"a": State.READY, "b": State.QUEUED, "c": State.FAILED}


def test_states_are_known_where_slurm_does_not_answer(study, squeue) -> None:
    squeue("slurm_load_jobs error: Unable to contact slurm controller", status=1)
    record(study, "a").submitted("1")
    assert states_of(study)["a"] is State.READY
    with pytest.raises(UserError, match="Unable to contact slurm controller; check that SLURM is running"):
        read_queue()


def test_absent_slurm_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^squeue: no such command, so there is no SLURM here; [^\n]*$"):
        ask_slurm("squeue")
