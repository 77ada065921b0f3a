"""The hours left follow from measured jobs, the nearest ones first, and nothing is made up."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from fewseg.engine.study.description.jobs import Job, Kind
from fewseg.engine.study.progress.estimate import Estimates, seconds_by_pace, seconds_left
from fewseg.engine.study.running.records import Attempt, JobRecord, Traits
from fewseg.engine.study.running.state import State, states_of

from .conftest import PLAIN


@pytest.fixture
def jobs(expand, tmp_path: Path):
    return expand(f"{PLAIN}folder: {tmp_path}/exp")


def of_kind(jobs, kind: Kind, method: str) -> list[Job]:
    return [job for job in jobs.jobs.values() if job.kind is kind and job.config.Method.arch == method]


def test_nearest_measured_jobs_count(jobs) -> None:
    job = of_kind(jobs, Kind.TRAIN, "bam")[0]
    traits = Traits.of(job)
    assert (traits.kind, traits.method, traits.data_set) == ("train", "bam", "pascal")
    other_data, other_method = replace(traits, data_set="coco"), replace(traits, method="pfenet")
    base = replace(traits, kind="base")
    assert Estimates([]).of(job) is None
    assert Estimates([(base, 5.0)]).of(job) is None
    for measured, seconds, number in (
        ([(other_method, 10.0), (other_method, 30.0), (base, 5.0)], 20.0, 2),
        ([(other_method, 10.0), (other_data, 40.0)], 40.0, 1),
        ([(other_method, 10.0), (other_data, 40.0), (traits, 6.0), (traits, 8.0), (traits, 7.0)], 7.0, 3),
    ):
        estimate = Estimates(measured).of(job)
        assert estimate is not None
        assert estimate.seconds == pytest.approx(seconds)
        assert estimate.measured == number


def test_length_of_a_training_counts_and_the_order_of_the_measurements_does_not(jobs) -> None:
    job = of_kind(jobs, Kind.TRAIN, "bam")[0]
    epochs = job.config.Train.epochs
    measured = [(replace(Traits.of(job), size=epochs * part), 0.1 * part * part) for part in (1, 2, 3)]
    estimate = Estimates(measured).of(job)
    assert estimate is not None
    assert estimate.seconds == pytest.approx(0.1 * (1 + 4 + 9) / 6)
    assert Estimates(reversed(measured)).of(job) == estimate


def test_size_of_a_test_is_the_number_of_its_episodes(jobs) -> None:
    test = of_kind(jobs, Kind.TEST, "bam")[0]
    size = Traits.of(test).size
    assert size % 1000 == 0
    assert Traits.of(replace(test, results=("a", "b"))).size == 2 * size


def test_only_jobs_that_were_seen_to_end_well_are_measured(jobs, tmp_path: Path) -> None:
    well, failed, lost, without = of_kind(jobs, Kind.TRAIN, "bam")
    for job, status, error in ((well, 0, None), (failed, 1, "no space"), (without, 0, "gave no result")):
        record = JobRecord.of(tmp_path / "exp", job)
        record.folder.mkdir(parents=True)
        record.end(record.begin(job), status, error)
    record = JobRecord.of(tmp_path / "exp", lost)
    record.folder.mkdir()
    record.begin(lost)
    record.end(record.begin(lost), 0, None)
    estimates = Estimates.read(jobs, states_of(jobs))
    assert estimates.measured == 1
    assert JobRecord.of(tmp_path / "exp", well).measured() is not None


def test_attempts_of_one_job_are_added_up(jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = of_kind(jobs, Kind.TRAIN, "bam")[0]
    record = JobRecord.of(tmp_path / "exp", job)
    record.folder.mkdir(parents=True)
    clock = iter([100.0, 130.0, 200.0, 210.0])
    monkeypatch.setattr("fewseg.engine.study.running.records.time.time", lambda: next(clock))
    record.end(record.begin(job), 130, "stopped")
    record.end(record.begin(job), 0, None)
    assert record.measured() == (Traits.of(job), 40.0)


def test_tests_by_hand_are_measured_by_their_results(jobs, finish) -> None:
    training = of_kind(jobs, Kind.TRAIN, "pfenet")[0]
    test = jobs.jobs[jobs.dependents[training.key][0]]
    finish(training, jobs)
    finish(test, jobs, seconds=50.0)
    estimates = Estimates.read(jobs, states_of(jobs))
    estimate = estimates.of(test)
    assert estimate is not None
    assert (estimates.measured, estimate.seconds) == (1, pytest.approx(50.0))
    assert estimates.of(training) is None


def test_time_of_a_running_job_is_taken_off(jobs) -> None:
    job = of_kind(jobs, Kind.TRAIN, "bam")[0]
    estimates = Estimates([(Traits.of(job), 1000.0)])
    now = time.time()
    attempts = [Attempt(now - 900, 300.0, 130, "here"), Attempt(now - 500, None, None, "here")]
    left = seconds_left(job, State.RUNNING, attempts, estimates)
    assert left is not None
    assert 100 < left <= 200
    assert seconds_left(job, State.RUNNING, [Attempt(0.0, None, None, "here")], estimates) == 0.0
    assert seconds_left(job, State.FAILED, attempts, estimates) == 1000.0
    assert seconds_left(job, State.DONE, [], estimates) == 0.0
    assert seconds_left(job, State.READY, [], Estimates([])) is None


def test_pace_of_a_training_or_test_gives_its_time_left() -> None:
    facts = {"epoch": 3, "epochs": 10, "step": 20, "steps": 100, "seconds_a_step": 0.5}
    assert seconds_by_pace(facts) == (7 * 100 + 80) * 0.5
    assert seconds_by_pace({**facts, "epoch": 11, "step": 0}) == 0.0
    assert seconds_by_pace({"work": "testing"}) is None
    assert seconds_by_pace({"episode": 100, "episodes": 1000, "seconds_an_episode": 0.5}) == 450.0
    assert seconds_by_pace({**facts, "seconds_a_step": None}) is None
