"""Study files over the shipped configs, and jobs whose command is a line of Python."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fewseg.engine.setup.run_path import run_key
from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.description.study_file import read_study
from fewseg.engine.training.finished import Finished
from fewseg.engine.training.snapshot import BEST, LAST
from fewseg.util.config import load_config
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.result import Result, SeedResult

ROOT = Path(__file__).resolve().parents[3]

PLAIN = f"""
config: "{ROOT}/config/{{data}}/{{method}}_{{backbone}}.yaml"
grid: {{data: [pascal], method: [bam, pfenet], backbone: [resnet50], fold: [0, 1], shot: [1, 5]}}
"""

Expand = Callable[[str], StudyJobs]


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], Path]:
    """Return what writes a study file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "table.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def expand(study: Callable[[str], Path]) -> Expand:
    """Return what turns the text of a study file into its jobs."""
    return lambda text: jobs_of(read_study(study(text)))


@pytest.fixture
def stub() -> Callable[..., Job]:
    """Return what makes a job that no study names; its command is given where it is started."""
    config = load_config(ROOT / "config/pascal/pspnet_resnet50.yaml")

    def make(key: str = "0123456789ab", folder: Path = Path("nowhere"), **facts: object) -> Job:
        return Job(key, Kind.BASE, f"stub {key}", ("train.py",), config, folder, **facts)

    return make


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _finish(job: Job, jobs: StudyJobs, seconds: float = 1.0) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    if job.kind is Kind.TEST:
        config, seeds = job.config, (SeedResult(seed=1, episode_hash="0" * 16, metrics={"mIoU": 0.5}),)
        facts = {"data_set": config.Data.data_set, "fold": config.Data.split, "protocol": "bam"}
        for number, key in enumerate(job.results):
            ResultFolder(job.folder).add(
                Result(
                    **facts,
                    method=config.Method.arch,
                    backbone=config.Method.backbone,
                    shot=config.Data.shot + number,
                    episodes=10,
                    seeds=seeds,
                    seconds=seconds,
                    key=key,
                    checkpoint_hash=_hash(job.needs[0]),
                )
            )
    else:
        base = next((need for need in job.needs if jobs.jobs[need].kind is Kind.BASE), None)
        Finished(
            key=run_key(job.config),
            base_learner=None if base is None else _hash(base),
            mined_labels=None,
            epochs=1,
            best_score=0.5,
            best_epoch=1.0,
            weights={BEST: _hash(job.key), LAST: _hash(job.key)},
            parameters=1,
            seconds_a_step=0.1,
            peak_gib=0.1,
            processes=1,
            versions={},
        ).write(job.folder)


@pytest.fixture
def finish() -> Callable[..., None]:
    """Return what writes the files by which a training or a test is done; ``seconds`` is that of a result."""
    return _finish
