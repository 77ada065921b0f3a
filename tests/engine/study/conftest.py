"""Study files over the shipped configs, and jobs whose command is a line of Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fewseg.engine.study.jobs import Job, Kind, StudyJobs, jobs_of
from fewseg.engine.study.study_file import read_study
from fewseg.util.config import load_config

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
