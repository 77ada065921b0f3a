"""Which jobs are submitted together, and what each array waits for."""

from __future__ import annotations

import pytest

from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.slurm import arrays
from fewseg.engine.study.slurm.arrays import Array, arrays_of

from .conftest import PLAIN, ROOT

MINED = f"""
config: "{ROOT}/config/shapes/{{method}}_resnet18.yaml"
grid: {{method: [panet, mlc-reconstruction], fold: [0], shot: [1, 5]}}
"""


def of_kind(array: Array) -> Kind:
    (kind,) = {job.kind for job in array.jobs}
    return kind


def needs(job: Job, jobs: StudyJobs) -> set[str]:
    direct = {*job.needs}
    return direct.union(*(needs(jobs.jobs[need], jobs) for need in direct))


@pytest.mark.parametrize("text", [PLAIN, MINED])
def test_every_job_is_in_one_array_and_after_all_that_it_needs(expand, text) -> None:
    jobs = expand(text)
    seen: list[str] = []
    for array in arrays_of(jobs, [*jobs.jobs], []):
        assert {*array.after} <= {*seen}
        for number, job in enumerate(array.jobs):
            waits = {array.after[number]} if array.one_by_one else {*array.after}
            assert waits == {*job.needs}
        if array.one_by_one:
            assert len(array.after) == len(array.jobs)
        seen += [job.key for job in array.jobs]
    assert sorted(seen) == sorted(jobs.jobs)


def test_trainings_of_one_base_learner_are_one_array_and_their_tests_follow_it(expand) -> None:
    jobs = expand(PLAIN)
    found = [*arrays_of(jobs, [*jobs.jobs], [])]
    sizes = [(of_kind(array), len(array.jobs), array.one_by_one) for array in found]
    assert sizes == [
        (Kind.BASE, 2, False),
        *[(Kind.TRAIN, 2, False), (Kind.TEST, 2, True)],  # BAM on fold 0
        *[(Kind.TRAIN, 2, False), (Kind.TEST, 2, True)],  # BAM on fold 1
        *[(Kind.TRAIN, 4, False), (Kind.TEST, 4, True)],  # PFENet, which needs no base learner
    ]
    assert found[1].after == (found[0].jobs[0].key,)


def test_what_is_done_is_not_waited_for_and_what_is_queued_is(expand) -> None:
    jobs = expand(PLAIN)
    first = next(job for job in jobs.jobs.values() if job.kind is Kind.TRAIN and job.needs)
    test = jobs.dependents[first.key][0]
    (alone,) = arrays_of(jobs, [test], [])
    assert (alone.after, alone.one_by_one) == ((), False)
    (behind,) = arrays_of(jobs, [test], [first.key])
    assert (behind.after, behind.one_by_one) == ((first.key,), False)
    training, following = arrays_of(jobs, [first.key, test], [*first.needs])
    assert training.after == first.needs
    assert (following.after, following.one_by_one) == ((first.key,), True)


def test_arrays_are_no_larger_than_slurm_takes(expand, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = expand(PLAIN)
    monkeypatch.setattr(arrays, "LARGEST", 3)
    found = [*arrays_of(jobs, [*jobs.jobs], [])]
    assert max(len(array.jobs) for array in found) == 3
    assert sum(len(array.jobs) for array in found) == len(jobs.jobs)
    assert all(len(array.after) == len(array.jobs) for array in found if array.one_by_one)
