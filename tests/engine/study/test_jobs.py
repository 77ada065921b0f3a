"""From a study to its jobs: each once, after what it needs, with a key that says what it gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Job, Kind
from fewseg.engine.study.description.study_file import read_study
from fewseg.util.config import load_config
from fewseg.util.config.plain_yaml import as_text
from fewseg.util.errors import ConfigError

from .conftest import PLAIN, ROOT


def of_kind(jobs, kind: Kind) -> list[Job]:
    return [job for job in jobs.jobs.values() if job.kind is kind]


def shapes(*lines: str, **grid: object) -> str:
    axes = {"method": ["bam"], "fold": [0], **grid}
    config = f'config: "{ROOT}/config/shapes/{{method}}_resnet18.yaml"'
    return "\n".join([config, f"grid: {as_text(axes)}", *lines])


def test_base_learners_are_found_from_the_configs_and_shared(expand) -> None:
    jobs = expand(PLAIN)
    assert Counter(job.kind for job in jobs.jobs.values()) == {Kind.BASE: 2, Kind.TRAIN: 8, Kind.TEST: 8}
    order = [*jobs.jobs]
    for job in jobs.jobs.values():
        assert all(order.index(need) < order.index(job.key) for need in job.needs)
    bases = {job.config.Data.split: job.key for job in of_kind(jobs, Kind.BASE)}
    for job in of_kind(jobs, Kind.TRAIN):  # PFENet starts from the backbone's weights
        assert job.needs == ((bases[job.config.Data.split],) if job.config.Method.arch == "bam" else ())
    assert all(jobs.jobs[test.needs[0]].kind is Kind.TRAIN for test in of_kind(jobs, Kind.TEST))


def test_runs_of_the_shipped_configs_go_where_the_scripts_put_them(expand) -> None:
    folders = [str(job.folder) for job in expand(PLAIN).jobs.values()]
    assert folders[:2] == ["exp/pascal/pspnet_resnet50/split0", "exp/pascal/bam_resnet50/split0_shot1"]
    assert "exp/pascal/pfenet_resnet50/split1_shot5/results" in folders


def test_equal_jobs_of_two_studies_are_one(expand) -> None:
    plain = expand(PLAIN).jobs
    wider = expand(PLAIN.replace("[bam, pfenet]", "[msanet, bam]")).jobs
    assert len(plain.keys() & wider.keys()) == 2 + 4 + 4  # base learners, and all of BAM's
    assert plain.keys() == expand(PLAIN + "opts: {workers: 1, print_freq: 3}").jobs.keys()
    assert not {job.key for job in of_kind(expand(PLAIN + "opts: {epochs: 9}"), Kind.TRAIN)} & plain.keys()


def test_another_base_learner_makes_other_jobs_in_other_folders(expand) -> None:
    plain, changed = expand(shapes()), expand(shapes("base_opts: {epochs: 3}"))
    assert not plain.jobs.keys() & changed.jobs.keys()
    base, train, _ = changed.jobs.values()
    assert base.folder.name.startswith("split0_epochs3_")
    assert train.config.Method.base_weight == str(base.folder / "best.safetensors")
    assert train.folder not in {job.folder for job in plain.jobs.values()}


def test_base_learner_follows_the_data_and_the_backbone_of_its_methods(expand) -> None:
    base, train, _ = expand(
        shapes("opts: {data_root: own/shapes, Method.backbone_options.width: 8}")
    ).jobs.values()
    assert (base.kind, base.config.Data.data_root) == (Kind.BASE, "own/shapes")
    assert base.config.Method.backbone_options == train.config.Method.backbone_options


def test_other_folder_holds_everything(expand, tmp_path: Path) -> None:
    base, train, test = expand(shapes(f"folder: {tmp_path}/runs")).jobs.values()
    assert train.folder == tmp_path / "runs/shapes/bam_resnet18/split0_shot1"
    assert train.config.Train.save_path == str(train.folder)
    assert train.config.Method.base_weight == f"{base.folder}/best.safetensors"
    assert test.folder == train.folder / "results"
    assert [job.key for job in (base, train, test)] == [*expand(shapes()).jobs]  # paths make no other job


def test_tests_of_one_checkpoint_are_one_job(expand) -> None:
    jobs = expand(shapes(test_shot=[1, 5], shot=[1], adapt=["none", "eftnet"]))
    assert len(of_kind(jobs, Kind.TRAIN)) == 1
    plain, adapted = of_kind(jobs, Kind.TEST)
    assert plain.script[plain.script.index("--shots") + 1 :][:2] == ("1", "5")
    assert len(plain.results) == len(set(plain.results) | set(adapted.results)) / 2 == 2
    assert [result for _, _, result in jobs.cells] == [
        plain.results[0], adapted.results[0], plain.results[1], adapted.results[1]
    ]  # fmt: skip


def test_an_adapted_method_shares_the_training_of_the_method(expand) -> None:
    jobs = expand(shapes(method=["msanet", "eftnet", "bam"]))
    assert len(of_kind(jobs, Kind.TRAIN)) == 2
    plain, adapted, other = of_kind(jobs, Kind.TEST)
    assert plain.needs == adapted.needs != other.needs and plain.folder == adapted.folder
    assert plain.key != adapted.key and plain.results != adapted.results
    assert [job.config.Test_Finetune.adapt for job in (plain, adapted)] == [None, "eftnet"]
    assert [result for _, _, result in jobs.cells] == [*plain.results, *adapted.results, *other.results]


def test_weights_of_ones_own_tell_trainings_apart(expand) -> None:
    jobs = expand(shapes(base_weight=["a/run1/best.safetensors", "a/run2/best.safetensors"]))
    assert Counter(job.kind for job in jobs.jobs.values()) == {Kind.TRAIN: 2, Kind.TEST: 2}
    with pytest.raises(ConfigError, match="would hold two trainings"):
        expand(shapes(base_weight=["a/run/best.safetensors", "b/run/best.safetensors"]))


def test_mined_labels_come_from_a_training_of_their_own(expand) -> None:
    changes = "opts: {epochs: 2, Method.options.mining_weight: 1}"
    jobs = expand(shapes("mining: {clusters: 5}", changes, method=["mlc-reconstruction"]))
    base, plain, mining, train, _ = jobs.jobs.values()
    assert [base.kind, plain.kind, mining.kind] == [Kind.BASE, Kind.TRAIN, Kind.MINE]
    assert plain.config.Method.arch == "mlc"
    assert plain.config.Train.epochs == 2
    assert mining.needs == (plain.key,)
    assert mining.folder == plain.folder / "mined_clusters5"
    assert train.config.Data.mined_labels == str(mining.folder)
    assert set(train.needs) == {base.key, mining.key}


def test_command_gives_the_config_of_its_job(expand) -> None:
    for job in expand(PLAIN + "opts: {seeds: [1, 2], protocol_options: {min_area: 9}}").jobs.values():
        if job.kind is not Kind.TEST:
            opts = job.script[job.script.index("--opts") + 1 :]
            assert opts[-2:] == ("resume", "auto")
            assert load_config(job.script[2], opts[:-2]) == job.config


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("opts: {base_rl: 1}", "base_rl: unknown key; did you mean base_lr?"),
        ("opts: {epochs: many}", "must be a whole number"),
        ("opts: {save_path: x}", "set by the study"),
        ("opts: {backbone: resnet34}", "no such config of the base learner pspnet"),
    ],
)
def test_mistakes_name_the_cell(expand, more: str, said: str) -> None:
    with pytest.raises(ConfigError) as failure:
        expand(shapes(more))
    assert said in str(failure.value)
    assert "table.yaml: bam fold 0: " in str(failure.value)


def test_base_learner_is_no_cell(expand) -> None:
    with pytest.raises(
        ConfigError, match="pspnet is a base learner, which is trained where a method needs it"
    ):
        expand(shapes(method=["pspnet"]))


def test_names_and_hashes_of_many_cells_are_distinct(study) -> None:
    text = shapes(
        method=["bam", "panet", "hsnet"], fold=[0, 1, 2, 3], shot=[1, 5], seed=[1, 2, 3], base_lr=[0.1, 0.2]
    )
    jobs = jobs_of(read_study(study(text)))
    assert len(jobs.cells) == 144
    assert len(jobs.jobs) == 4 + 144 + 144
    assert len({job.folder for job in jobs.jobs.values()}) == len(jobs.jobs)
    assert len({job.name for job in jobs.jobs.values()}) == len(jobs.jobs)
