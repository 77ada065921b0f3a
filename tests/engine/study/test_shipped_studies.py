"""The study files of this repository expand into jobs, and what they combine can be built."""

from __future__ import annotations

from collections import Counter

import pytest

from fewseg.engine.setup.build import build_adapter, build_few_shot
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Kind, StudyJobs
from fewseg.engine.study.description.study_file import read_study
from fewseg.model.create import METHODS
from fewseg.util.config import load_config

from .conftest import ROOT


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch):
    """Return what expands a study file of this repository, as in its folder."""
    monkeypatch.chdir(ROOT)

    def expanded(name: str) -> StudyJobs:
        return jobs_of(read_study(f"config/studies/{name}.yaml"))

    return expanded


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("shapes", {Kind.BASE: 2, Kind.TRAIN: 24, Kind.TEST: 24}),
        ("pascal", {Kind.BASE: 4, Kind.TRAIN: 40, Kind.TEST: 40}),
        ("learns", {Kind.BASE: 1, Kind.TRAIN: 63, Kind.MINE: 3, Kind.TEST: 63}),
        ("all_methods", {Kind.BASE: 2, Kind.TRAIN: 26, Kind.MINE: 1, Kind.TEST: 40}),
    ],
)
def test_number_of_jobs(shipped, name: str, numbers: dict[Kind, int]) -> None:
    assert Counter(job.kind for job in shipped(name).jobs.values()) == numbers


def test_every_method_has_a_recipe_by_which_it_learns(shipped) -> None:
    jobs = shipped("learns")
    labels = [(cell.labels["method"], cell.labels["parts"]) for cell, _, _ in jobs.cells]
    assert {method for method, _ in labels} == set(METHODS)
    assert set(Counter(labels).values()) == {3}  # one data set and one schedule, three seeds


def test_standard_table_trains_the_shipped_configs_in_their_own_folders(shipped) -> None:
    folders = {str(job.folder) for job in shipped("pascal").jobs.values()}
    assert {"exp/pascal/pspnet_resnet50/split3", "exp/pascal/hdmnet_resnet50/split0_shot5"} <= folders


def test_all_methods_are_in_the_study_of_all_methods_and_can_be_combined_as_it_says(shipped) -> None:
    jobs = shipped("all_methods")
    configs = {path: load_config(path) for path in (ROOT / "config/shapes").glob("*.yaml")}
    methods = {config.Method.arch for config in configs.values() if not trains_base_learner(config)}
    assert {cell.labels["method"] for cell, _, _ in jobs.cells} == methods
    for cell, test, _ in jobs.cells:
        config = jobs.jobs[test].config
        network = build_few_shot(config, fold_of(config).classes)
        parts, published = cell.labels["parts"], build_parts(cell.labels["method"])
        assert (network.base_head is not None, network.ensemble is not None) == {
            "with_base": (True, True),
            "without_base": (False, False),
        }.get(parts, published)
        assert parts not in ("with_base", "without_base") or (parts == "with_base") != published[0]
        assert (build_adapter(config, network) is not None) == (parts == "adapted")


def build_parts(method: str) -> tuple[bool, bool]:
    """Return whether a method is published with a base learner, and with an ensemble."""
    published = method in ("bam", "msanet", "hdmnet")
    return published, published
