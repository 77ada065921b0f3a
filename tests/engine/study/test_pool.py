"""The pool: every job once, after what it needs, on cards that are nearly always busy."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.progress.simulation import simulate
from fewseg.engine.study.running.pool import Ended, Pool
from fewseg.util.errors import UserError
from tools.benchmark import main as benchmark
from tools.benchmarks.schedule import check, draw_durations, least_of

from .conftest import PLAIN, ROOT

Make = Callable[[int], StudyJobs]


@pytest.fixture
def made(expand, stub) -> Make:
    """Return what makes a study of chains of stub jobs: base -> 3 trainings -> a test each."""
    study = expand(PLAIN).study

    def make(chains: int, **facts: object) -> StudyJobs:
        jobs: list[Job] = []
        for chain in range(chains):
            jobs.append(stub(f"base{chain}", **facts))
            for number in range(3):
                jobs.append(stub(f"train{chain}.{number}", needs=(f"base{chain}",), **facts))
                jobs.append(stub(f"test{chain}.{number}", needs=(f"train{chain}.{number}",)))
        return StudyJobs(study, {job.key: job for job in jobs}, [])

    return make


def test_whole_field_keeps_64_cards_busy_and_runs_no_job_twice(expand) -> None:
    text = (ROOT / "config/studies/field.yaml").read_text().replace("config/{", f"{ROOT}/config/{{")
    jobs = expand(text.replace("config/pascal", f"{ROOT}/config/pascal"))
    kinds = Counter(job.kind for job in jobs.jobs.values())
    assert kinds == {Kind.BASE: 24, Kind.TRAIN: 864, Kind.MINE: 32, Kind.TEST: 864}
    for failures, factor, seed in ((0.0, 3.0, 0), (0.05, 3.0, 1), (0.0, None, 2)):
        drawn = draw_durations(jobs, seed, failures, factor)
        run = simulate(jobs, 64, drawn.seconds, expected=drawn.expected, failing=drawn.failing)
        failed, left_out = check(jobs, run, drawn.failing)
        assert (failed > 40 and left_out > 10) if failures else (failed, left_out) == (0, 0)
        assert run.busy / (64 * run.now) > 0.98
        assert 1.0 <= run.now / least_of(jobs, 64, run) < 1.02
    assert simulate(jobs, 64, drawn.seconds, expected=drawn.expected).runs == run.runs


def test_check_notices_wrong_schedules(made: Make) -> None:
    jobs = made(2)
    seconds = dict.fromkeys(jobs.jobs, 1.0)
    for wrong, said in (
        (lambda runs: [*runs, runs[0]], "ran twice"),
        (lambda runs: runs[:-1], "did not run"),
        (lambda runs: [runs[0], *[_moved(job, 0.0, card) for card, job in enumerate(runs[1:], 9)]], "early"),
        (lambda runs: [_moved(job, job.begin, 0) for job in runs], "held twice"),
    ):
        run = simulate(jobs, 2, seconds)
        run.runs[:] = wrong(run.runs)
        with pytest.raises(AssertionError, match=said):
            check(jobs, run, frozenset())


def _moved(run, begin: float, card: int):
    return type(run)(run.key, begin, begin + run.end - run.begin, (card,))


def test_benchmark_prints_the_schedule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.yaml"
    file.write_text(PLAIN)
    benchmark(["schedule", "--study", str(file), "--cards", "4", "--seeds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "18 jobs on 4 cards"
    assert len(lines) == 2 + 4
    assert all(float(line.split()[-3]) >= 1 for line in lines[2:])


def test_longest_chain_is_first_and_equal_ones_are_in_the_order_of_the_study(made: Make) -> None:
    jobs = made(3)
    seconds = dict.fromkeys(jobs.jobs, 1.0) | {"test1.2": 5.0}
    started = [run.key for run in simulate(jobs, 1, seconds).runs]
    assert started[:3] == ["base1", "train1.2", "test1.2"]
    assert started[3:6] == ["base0", "base2", "train0.0"]


def test_large_jobs_get_their_cards(made: Make) -> None:
    jobs = made(3, processes=3)
    seconds = {key: random.Random(key).uniform(1, 5) for key in jobs.jobs}
    run = simulate(jobs, 4, seconds)
    check(jobs, run, frozenset())
    assert {len(job.cards) for job in run.runs if job.key.startswith("t")} == {1, 3}
    with pytest.raises(UserError, match="needs 3 GPUs, of which there are 2; change processes"):
        simulate(jobs, 2, seconds)


class _Other:
    """A launcher beside another process, which has claimed ``theirs`` and ends or leaves them."""

    def __init__(self, theirs: Mapping[str, Sequence[Ended | None]]) -> None:
        self.theirs = {key: [*ends] for key, ends in theirs.items()}
        self.started: list[str] = []
        self._running: list[str] = []

    def start(self, job: Job, cards: tuple[int, ...]) -> bool:
        if self.theirs.get(job.key):
            return False
        self.started.append(job.key)
        self._running.append(job.key)
        return True

    def wait(self) -> Mapping[str, Ended]:
        return {self._running.pop(0): Ended(None)} if self._running else {}

    def elsewhere(self, job: Job) -> Ended | None:
        return self.theirs[job.key].pop(0)


def test_jobs_of_another_process_are_waited_for_and_taken_over_if_it_dies(made: Make) -> None:
    jobs = made(2)
    other = _Other({"base0": [None, None, Ended(None)], "base1": [None, Ended(None, due=True)]})
    pool = Pool(jobs, [], 2, other, seconds=lambda job: 1.0)
    pool.run()
    assert pool.errors == {}
    assert Counter(other.started) == Counter(jobs.jobs.keys() - {"base0"})
    assert other.started[0] == "base1"


def test_failure_elsewhere_leaves_out_what_needs_it(made: Make) -> None:
    jobs = made(2)
    other = _Other({"base0": [None, Ended("no space")]})
    pool = Pool(jobs, ["base1", "train1.0"], 2, other, seconds=lambda job: 1.0)
    pool.run()
    assert pool.errors == {"base0": "no space"}
    assert {*other.started} == {"test1.0", "train1.1", "test1.1", "train1.2", "test1.2"}
