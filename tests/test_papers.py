"""The studies of the papers' tables expand and can be built, and the page lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fewseg.dataset.classes.split import ClassSplit
from fewseg.engine.setup import build
from fewseg.engine.setup.build import build_adapter, build_few_shot
from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Kind
from fewseg.engine.study.description.study_file import read_study

ROOT = Path(__file__).resolve().parent.parent
STUDIES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("config/studies/*/*.yaml"))
SPLIT = ClassSplit(novel=(16, 17), base=tuple(range(1, 16)), names=("background", *map(str, range(1, 18))))
"""Stands for the classes of any fold, whose number only decides the width of a base learner's last layer."""


def test_the_page_names_every_study_and_no_other() -> None:
    page = (ROOT / "docs/papers.md").read_text(encoding="utf-8")
    named = set(re.findall(r"config/studies/\S+?/\S+?\.yaml", page))
    assert named == set(STUDIES)


@pytest.mark.parametrize("path", STUDIES)
def test_every_network_of_a_study_can_be_built(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(build, "load_word_vectors", lambda *_: torch.zeros(len(SPLIT.names), 300))
    study = read_study(path)
    one_fold = {"fold": study.grid["fold"][:1]} if "fold" in study.grid else {}
    jobs = jobs_of(study.model_copy(update={"grid": study.grid | one_fold}))
    assert jobs.cells
    built = set()
    for job in jobs.jobs.values():
        key = repr((job.config.Method, job.config.Data.shot, job.config.Test_Finetune.adapt_options))
        if job.kind is Kind.TEST and key not in built:
            built.add(key)
            with torch.device("meta"):  # no memory for weights that nobody reads
                build_adapter(job.config, build_few_shot(job.config, SPLIT))
    assert built
