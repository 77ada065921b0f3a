"""A study as a user runs it: what fails is told and taken up again, what is done is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Kind
from fewseg.engine.study.description.study_file import read_study
from fewseg.engine.study.running.claim import Claim
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.running.state import State, states_of
from fewseg.engine.training.finished import FINISHED

from .conftest import ROOT

STUDY = """
config: {root}/config/shapes/panet_resnet18.yaml
grid: {{fold: [0], lr: {{low: {{base_lr: 1.0e-4}}, wrong: {{Method.options.{option}: 2}}}}}}
folder: {folder}
opts: {{data_root: {data}, train_list: {lists}, val_list: {lists}, train_h: 65, train_w: 65, val_size: 65,
        epochs: 1, batch_size: 4, workers: 0, val_episodes: 4, episodes: 8, seeds: [1], panels: 0,
        Method.base_weight: null, Method.backbone_options: {{width: 8, stem: deep}}}}
tables: [{{rows: lr, columns: fold}}]
"""


@pytest.fixture
def file(tmp_path: Path, shapes: Path) -> Path:
    path = tmp_path / "small.yaml"
    lists = shapes / "ImageSets/Segmentation/train.txt"
    path.write_text(
        STUDY.format(root=ROOT, folder=tmp_path / "exp", data=shapes, lists=lists, option="nonsense")
    )
    return path


def study(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "study.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)


def test_study_goes_on_where_it_failed(file: Path, tmp_path: Path) -> None:
    first = study("run", file, "--slots", 2)
    assert first.returncode == 1
    assert "Traceback" not in first.stdout + first.stderr
    assert "options.nonsense" in first.stdout + first.stderr
    jobs = jobs_of(read_study(file))
    states = {job.name: states_of(jobs)[key] for key, job in jobs.jobs.items()}
    assert states == {
        "fold 0 lr low": State.DONE,
        "fold 0 lr wrong": State.FAILED,
        "fold 0 lr low, 1-shot": State.DONE,
        "fold 0 lr wrong, 1-shot": State.WAITING,
    }
    assert study("plan", file).returncode == 1

    file.write_text(file.read_text().replace("nonsense", "scale"))
    jobs = jobs_of(read_study(file))
    done = [job for key, job in jobs.jobs.items() if states_of(jobs)[key] is State.DONE]
    assert len(done) == 2
    again = study("run", file)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "test fold 0 lr wrong, 1-shot: done (4 of 4 done)" in again.stdout
    assert set(states_of(jobs).values()) == {State.DONE}
    assert all(len(JobRecord.of(tmp_path / "exp", job).attempts()) == 1 for job in jobs.jobs.values())

    low = next(job for job in jobs.jobs.values() if job.kind is Kind.TRAIN)
    assert states_of(jobs)[low.key] is State.DONE
    (low.folder / FINISHED).unlink()  # as if its weights had been removed after the test
    assert states_of(jobs)[low.key] is State.DONE


def test_claimed_job_is_running(file: Path, tmp_path: Path) -> None:
    jobs = jobs_of(read_study(file))
    job = next(iter(jobs.jobs.values()))
    claim = Claim.take(JobRecord.of(tmp_path / "exp", job).folder)
    assert claim is not None
    assert states_of(jobs)[job.key] is State.RUNNING
    claim.release()
    assert states_of(jobs)[job.key] is State.READY


def test_commands_are_shell_lines(file: Path) -> None:
    lines = study("commands", file).stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(("python train.py --config", "python test.py --config")) for line in lines)


def test_reader_that_ends_early_is_no_error(file: Path) -> None:
    line = f"{sys.executable} study.py commands {file} | true"
    outcome = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert outcome.stderr == ""


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    outcome = study("plan", tmp_path / "none.yaml")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: ") and outcome.stderr.count("\n") == 1
