"""``plan`` and ``status``: every job in its state, what running jobs say, and the errors of failed ones."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.progress.overview import duration, overview_of
from fewseg.engine.study.progress.screen import console, show_plan, show_status
from fewseg.engine.study.running.claim import Claim
from fewseg.engine.study.running.records import JobRecord
from fewseg.util.live import LIVE
from study import main

from .conftest import PLAIN

FACTS = {"work": "training", "phase": "steps", "epoch": 3, "epochs": 10, "step": 20, "steps": 100}
FACTS |= {"seconds_a_step": 8.0, "loss": 0.51239, "best_score": 0.4321, "best_epoch": 2.0, "host": "node7"}


@pytest.fixture
def jobs(expand, tmp_path: Path) -> StudyJobs:
    return expand(f"{PLAIN}folder: {tmp_path}/exp")


@pytest.fixture
def some(jobs: StudyJobs, tmp_path: Path, finish) -> Iterator[dict[str, Job]]:
    """One job of every state by its name: PFENet's trainings, of 0.5 h if they are measured."""
    done, running, failed, ready = [
        job for job in jobs.jobs.values() if job.kind is Kind.TRAIN and job.config.Method.arch == "pfenet"
    ]
    finish(done, jobs)
    record = JobRecord.of(tmp_path / "exp", done)
    record.folder.mkdir(parents=True)
    begun = record.begin(done)
    record.end(begun, 0, None)
    lines = [json.loads(line) for line in (record.folder / "attempts.jsonl").read_text().splitlines()]
    lines[1]["seconds"] = 1800.0
    (record.folder / "attempts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    claim = Claim.take(JobRecord.of(tmp_path / "exp", running).folder)
    assert claim is not None
    JobRecord.of(tmp_path / "exp", running).begin(running)
    running.folder.mkdir(parents=True)
    (running.folder / LIVE).write_text(json.dumps(FACTS))
    record = JobRecord.of(tmp_path / "exp", failed)
    record.folder.mkdir(parents=True)
    record.end(record.begin(failed), 2, "[Errno 28] no space on the disk")
    yield {"done": done, "running": running, "failed": failed, "ready": ready}
    claim.release()


def plan_of(jobs: StudyJobs, every_job: bool = False, cards: int = 2) -> str:
    out = io.StringIO()
    show_plan(overview_of(jobs, cards), every_job, console(out))
    return out.getvalue()


def status_of(jobs: StudyJobs, width: int = 200) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    show_status(overview_of(jobs, 2), out)
    return out.file.getvalue()  # type: ignore[attr-defined]


def test_plan_counts_the_jobs_and_lists_those_that_matter(jobs: StudyJobs, some: dict[str, Job]) -> None:
    text = plan_of(jobs)
    assert "\x1b" not in text
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["table", "done", "running", "failed", "ready", "waiting", "all"]
    assert ["base", "0", "0", "0", "2", "0", "2"] in lines
    assert ["train", "1", "1", "1", "1", "4", "8"] in lines
    assert ["test", "0", "0", "0", "1", "7", "8"] in lines
    assert ["all", "1", "1", "1", "4", "11", "18"] in lines
    listed = [line for line in lines if len(line) > 2 and line[2] in jobs.jobs]
    assert [line[0] for line in listed] == ["running", "failed", "ready", "ready", "ready", "ready"]
    assert [line[2] for line in listed][:2] == [some["running"].key, some["failed"].key]
    assert "and 12 more; --jobs lists all" in text
    assert f"train {some['failed'].name}: [Errno 28] no space on the disk" in text
    assert f"log: {JobRecord.of(jobs.study.root, some['failed']).log}" in text
    everything = plan_of(jobs, every_job=True)
    assert all(f" {key} " in everything for key in jobs.jobs)
    assert "more; --jobs" not in everything


def test_plan_says_what_is_left_and_what_it_follows_from(jobs: StudyJobs, some: dict[str, Job]) -> None:
    last = plan_of(jobs).splitlines()[-1]
    # of PFENet, one by its pace (7 epochs and 80 steps of 8 s: 1.73 h) and two of 0.5 h; of BAM four of 0.5 h
    assert last == (
        "time left: at least 2.5 h on 2 cards (4.7 h of one card in all), "
        "by the times of 1 measured job; 10 jobs of unknown duration"
    )
    (some["running"].folder / LIVE).unlink()
    assert "at least 2.0 h on 2 cards (3.5 h of one card in all)" in plan_of(jobs)
    assert "at least 3.5 h on 1 card (3.5 h of one card in all)" in plan_of(jobs, cards=1)


def test_nothing_measured_is_unknown_and_nothing_left_is_said(jobs: StudyJobs, finish) -> None:
    assert plan_of(jobs).splitlines()[-1] == "time left: unknown; no job of these kinds has been measured"
    for job in jobs.jobs.values():
        finish(job, jobs)
    assert plan_of(jobs).splitlines()[-1] == "nothing is left"


def test_short_form_for_the_lines_of_a_run(jobs: StudyJobs, some: dict[str, Job]) -> None:
    assert overview_of(jobs, 2).in_words == "1 of 18 done, over 2.5 h left"
    JobRecord.of(jobs.study.root, some["done"]).begin(some["done"])  # now nobody saw its end
    (some["running"].folder / LIVE).unlink()
    assert overview_of(jobs, 2).in_words == "1 of 18 done"


def test_status_shows_what_running_jobs_say(jobs: StudyJobs, some: dict[str, Job]) -> None:
    text = status_of(jobs)
    for part in ("1/18", "1 done, 1 running, 1 failed, 4 ready, 11 waiting", some["running"].name):
        assert part in text
    row = next(line for line in text.splitlines() if some["running"].name in line)
    facts = ["steps", "3/10", "20/100", "8.00", "0.512", "0.432 (2.0)", "node7", "s ago", "1.7 h"]
    places = [row.index(fact) for fact in facts]
    assert places == sorted(places)
    assert f"train {some['failed'].name}: [Errno 28] no space on the disk" in text


def test_job_that_says_nothing_is_silent(jobs: StudyJobs, some: dict[str, Job]) -> None:
    path = some["running"].folder / LIVE
    os.utime(path, (time.time() - 200,) * 2)
    assert "silent 3 min" in status_of(jobs)
    path.write_text(json.dumps({"work": "testing", "episode": 12, "episodes": 5000, "host": 3}))
    assert "12/5000" in status_of(jobs)
    path.unlink()
    row = next(line for line in status_of(jobs).splitlines() if some["running"].name in line)
    assert os.uname().nodename in row
    assert row.endswith("30 min")


def test_screen_of_eighty_columns_has_no_longer_line(jobs: StudyJobs, some: dict[str, Job]) -> None:
    assert max(map(len, status_of(jobs, width=80).splitlines())) <= 80


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "unknown"), (0, "0 s"), (59, "59 s"), (600, "10 min"), (5400, "1.5 h")]
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_script_leaves_with_1_while_a_job_has_failed(
    some: dict[str, Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "table.yaml")
    with pytest.raises(SystemExit) as left:
        main(["plan", file, "--slots", "3"])
    assert left.value.code == 1
    assert "no space on the disk" in capsys.readouterr().out
    main(["status", file, "--once"])
    assert "1 running" in capsys.readouterr().out
    JobRecord.of(tmp_path / "exp", some["failed"]).begin(some["failed"])  # removes the error
    main(["plan", file, "--jobs"])
    assert f"{some['done'].key}" in capsys.readouterr().out
