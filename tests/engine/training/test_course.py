"""A run that goes on under other settings: all of them are refused by name, or allowed, and have effect."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewseg.engine.setup.run_folder import RunFolder
from fewseg.engine.training.course import check_origin
from fewseg.engine.training.snapshot import LAST, STATE, Origin, Progress, Snapshot
from fewseg.util.checkpoint import file_hash
from fewseg.util.errors import CheckpointError
from fewseg.util.state_file import load_training_state, save_training_state
from train import prepare, train

CPU = torch.device("cpu")
SHORT = {"batch_size": 12, "epochs": 1, "evaluate": False, "base_weight": "''"}
TRAINED: dict[str, Path] = {}


def trained(config, arch, tmp_path):
    """Train for an epoch, once; return a folder with the outcome."""
    if arch not in TRAINED:
        train(config, CPU)
        TRAINED[arch] = shutil.copytree(tmp_path / "run", tmp_path / "trained")
    return shutil.copytree(TRAINED[arch], tmp_path / "run", dirs_exist_ok=True)


@pytest.fixture
def run(configure, tmp_path):
    """The folder of a base learner, trained for an epoch."""
    return trained(configure("pspnet", **SHORT), "pspnet", tmp_path)


@pytest.fixture
def few_shot_run(configure, base_weight, tmp_path):
    """The folder of a few-shot model, trained for an epoch."""
    settings = {**SHORT, "base_weight": tmp_path / "base.safetensors"}
    return trained(configure("bam", **settings), "bam", tmp_path)


def opened(config, allow_changes=False):
    with RunFolder(config) as folder:
        return prepare(config, CPU, folder, allow_changes)


def refusal(config, allow_changes=False):
    with pytest.raises(CheckpointError) as caught:
        opened(config, allow_changes)
    message = str(caught.value)
    assert "\n" not in message and STATE in message
    return message


class TestRefused:
    def test_all_that_differs_is_named(self, configure, run):
        before = {path.name: file_hash(path) for path in run.iterdir() if path.is_file()}
        settings = {**SHORT, "base_lr": 0.1, "weight_decay": 0.5, "train_h": 97, "train_w": 97}
        message = refusal(configure("pspnet", **settings, manual_seed=5, scale_max=1.5, resume=run))
        assert "Train.base_lr (was 0.001, now 0.1)" in message
        assert "Train.weight_decay (was 0.0001, now 0.5)" in message
        assert "Data.train_h (was 65, now 97)" in message and "Data.scale_max (was 1.1, now 1.5)" in message
        assert "Train.manual_seed (was 321, now 5)" in message
        assert f"--config {run / 'config.yaml'} --opts resume auto" in message
        assert message.endswith("--allow-changes")
        assert before == {path.name: file_hash(path) for path in run.iterdir() if path.is_file()}

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *[
                ("optimizer", "sgd"),
                ("batch_size", 6),
                ("power", 0.5),
                ("milestones", "[0.5]"),
                ("amp", True),
            ],
            *[("fix_bn", True), ("Method.backbone_options.width", 16), ("start_epoch", 1), ("split", 1)],
        ],
    )
    def test_base_learner(self, configure, run, key, value):
        named = key if "." in key else f".{key}"
        assert f"{named} (was" in refusal(
            configure("pspnet", **{**SHORT, "epochs": 2, key: value}, resume=run)
        )

    @pytest.mark.parametrize(
        ("key", "value"),
        [("ensemble", "none"), ("Method.options.channels", 32), ("ways", 2), ("val_size", 97)],
    )
    def test_few_shot_model(self, configure, few_shot_run, key, value):
        named = key if "." in key else f".{key}"
        assert f"{named} (was" in refusal(configure("bam", **{**SHORT, key: value}, resume=few_shot_run))

    def test_another_list_of_equal_length(self, configure, run, shapes, tmp_path):
        names = (shapes / "ImageSets/Segmentation/train.txt").read_text().split()
        (tmp_path / "other.txt").write_text("\n".join([*names[1:], names[0]]) + "\n")
        message = refusal(configure("pspnet", **SHORT, train_list=tmp_path / "other.txt", resume=run))
        assert (
            "training images (was 120 (" in message and "now 120 (" in message and "train_list" not in message
        )

    def test_the_same_list_elsewhere_is_the_same(self, configure, run, shapes, tmp_path):
        shutil.copy(shapes / "ImageSets/Segmentation/train.txt", tmp_path / "moved.txt")
        opened(configure("pspnet", **SHORT, train_list=tmp_path / "moved.txt", resume=run))

    @pytest.mark.parametrize(
        ("key", "value"),
        [("split", 1), ("start_epoch", 1), ("pretrained", "imagenet"), ("data_set", "pascal")],
    )
    def test_what_cannot_change_on_the_way(self, configure, run, key, value):
        message = refusal(
            configure("pspnet", **{**SHORT, "epochs": 2, key: value}, resume=run), allow_changes=True
        )
        assert "cannot be changed on the way" in message and f".{key} (was" in message

    def test_network_of_another_width(self, configure, run):
        config = configure("pspnet", **SHORT, **{"Method.backbone_options.width": 16}, resume=run)
        assert "does not fit this network" in refusal(config, allow_changes=True)


class TestAllowed:
    def test_changes_take_effect_and_are_told(self, configure, run, caplog):
        settings = {**SHORT, "epochs": 2, "base_lr": 0.1, "weight_decay": 0.5, "manual_seed": 5}
        with caplog.at_level(logging.INFO, "fewseg"):
            loop = opened(configure("pspnet", **settings, resume=run), allow_changes=True)
        assert "going on with changes: " in caplog.text
        assert "Train.base_lr (was 0.001, now 0.1)" in caplog.text
        assert "going on to epoch 2, not 1" in caplog.text
        assert {group["weight_decay"] for group in loop.optimizer.param_groups} == {0.5}
        assert loop.schedule.base_lr == 0.1 and loop.reached.seed == 5
        assert loop.reached.epoch == 1 and loop.optimizer.state_dict()["state"]

    def test_another_optimizer_starts_its_moments_anew(self, configure, run):
        config = configure("pspnet", **SHORT, optimizer="sgd", resume=run)
        loop = opened(config, allow_changes=True)
        assert isinstance(loop.optimizer, torch.optim.SGD) and not loop.optimizer.state_dict()["state"]
        loop.run()
        opened(config)  # the state knows of the change from the start

    def test_other_batches_begin_where_the_images_were(self, configure, run):
        state = load_training_state(run / STATE)
        state["progress"] |= {"epoch": 0, "step": 2}
        save_training_state(run / STATE, state)
        loop = opened(configure("pspnet", **{**SHORT, "batch_size": 6}, resume=run), allow_changes=True)
        steps = state["plan"]["images per epoch"] // 12
        assert loop.reached.step == 2 * len(loop.batches) // steps

    def test_more_epochs_need_no_permission(self, configure, run, caplog):
        reached = train(configure("pspnet", **{**SHORT, "epochs": 2}, resume=run), CPU)
        assert reached.epoch == 2
        assert Snapshot.read(run).plan["Train.epochs"] == 2
        assert "with changes" not in caplog.text

    def test_where_files_go_and_how_fast_is_no_change(self, configure, run, tmp_path):
        config = configure("pspnet", **SHORT, save_freq=3, print_freq=1, workers=1, resume=run)
        opened(config.model_copy(update={"Train": config.Train.model_copy(update={"save_minutes": None})}))


class TestStates:
    """States of earlier versions, and malformed ones."""

    def earlier(self, folder):
        state = load_training_state(folder / STATE)
        plan = state["plan"]
        names = {"arch": "Method.arch", "backbone": "Method.backbone", "data_set": "Data.data_set"}
        names |= {"fold": "Data.split", "shot": "Data.shot", "epochs": "Train.epochs"}
        names |= {
            "batch_size": "Train.batch_size",
            "base_classes": "base classes",
            "images": "images per epoch",
        }
        old = {key: state[key] for key in ("model", "optimizer", "progress")}
        old |= {"plan": {key: plan[name] for key, name in names.items()}, "memory": {}}
        torch.save(old, folder / STATE)

    def test_earlier_version_is_resumed_and_told(self, configure, run, caplog):
        self.earlier(run)
        reached = train(configure("pspnet", **{**SHORT, "epochs": 2}, resume=run), CPU)
        assert reached.epoch == 2
        assert "is of an earlier version, which kept no learning rates" in caplog.text
        assert Snapshot.read(run).plan["Train.base_lr"] == 1e-3

    def test_a_key_without_effect_that_a_state_still_holds_changes_nothing(self, configure, run):
        state = load_training_state(run / STATE)
        state["plan"]["Method.zoom_factor"] = 8
        save_training_state(run / STATE, state)
        assert train(configure("pspnet", **{**SHORT, "epochs": 2}, resume=run), CPU).epoch == 2

    @pytest.mark.parametrize(
        ("key", "value"), [("batch_size", 6), ("manual_seed", 5), ("split", 1), ("optimizer", "sgd")]
    )
    def test_earlier_version_under_other_settings(self, configure, run, key, value):
        self.earlier(run)
        message = refusal(configure("pspnet", **{**SHORT, "epochs": 2, key: value}, resume=run))
        assert key in message

    @pytest.mark.parametrize(
        ("section", "key", "value"),
        [
            *[("progress", "epoch", 9), ("progress", "step", 10**9)],
            *[("plan", "Train.epochs", "many"), ("plan", "Train.batch_size", 0)],
            *[("plan", "images per epoch", None), ("plan", "Train.base_lr", "fast")],
        ],
    )
    def test_malformed(self, configure, run, section, key, value):
        state = load_training_state(run / STATE)
        state[section][key] = value
        save_training_state(run / STATE, state)
        assert key in refusal(configure("pspnet", **SHORT, resume=run))

    def test_stale_weights_of_a_finished_run_come_back(self, configure, run):
        good = file_hash(run / LAST)
        (run / LAST).write_bytes(b"stale")
        train(configure("pspnet", **SHORT, resume="auto"), CPU)
        assert file_hash(run / LAST) == good


def snapshot_of(origin):
    return Snapshot(Path(STATE), {}, {}, Progress(seed=1), {}, origin=origin)


@pytest.mark.parametrize("what", ["base_learner", "mined_labels"])
def test_run_that_began_from_another_file_of_the_same_path_is_refused(what, caplog):
    began, now = Origin(**{what: "ab" * 32}), Origin(**{what: "cd" * 32})
    said = f"{what.replace('_', ' ')} (was abababab, now cdcdcdcd)"
    with pytest.raises(CheckpointError, match="--allow-changes, begin anew with --overwrite") as refused:
        check_origin(snapshot_of(began), now, allow=False)
    assert said in str(refused.value)
    assert check_origin(snapshot_of(began), now, allow=True) == replace(
        began,
        changed=what == "mined_labels",  # the weights of the base learner are in the state
    )
    assert said in caplog.text


@pytest.mark.parametrize(
    ("began", "now"),
    [
        (Origin("ab" * 32, "cd" * 32, changed=True), Origin("ab" * 32, "cd" * 32)),
        (Origin("ab" * 32), Origin(None)),
        (Origin(None), Origin("ab" * 32, "cd" * 32)),
    ],
    ids=["same", "not there any more", "of an earlier version"],
)
def test_run_goes_on_where_no_other_file_is_known(began, now):
    assert check_origin(snapshot_of(began), now, allow=False) == began
