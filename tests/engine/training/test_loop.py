"""The training loop: resumed equals uninterrupted, and every end is a clean one."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest
import torch

import fewseg.engine.training.loop as training_loop
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of, training_data, training_loader
from fewseg.engine.setup.interrupt import Interrupted
from fewseg.engine.setup.weights import describe
from fewseg.engine.training.snapshot import BEST, LAST, STATE
from fewseg.engine.training.step import NotFiniteError
from fewseg.util.checkpoint import load_checkpoint, save_checkpoint
from fewseg.util.errors import CheckpointError
from fewseg.util.live import LIVE, read_live
from fewseg.util.metrics import IoUMeter
from fewseg.util.state_file import load_training_state
from tests.engine.small_loop import BATCH, IMAGES, small_loop
from train import train

CPU = torch.device("cpu")


def stop_after(monkeypatch, steps):
    """Send this process a SIGTERM after so many training steps."""
    taken = []
    original = training_loop.training_step

    def step(*arguments, **options):
        taken.append(1)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    monkeypatch.setattr(training_loop, "training_step", step)


def final_state(folder):
    state = load_training_state(folder / STATE)
    kept = {name: state[name] for name in ("model", "memories", "progress")}
    return {**kept, "moments": state["optimizer"]["state"]}


def assert_equal(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("arch", "workers", "steps"), [("bam", 0, 3), ("bam", 1, 8), ("canet", 0, 6), ("pspnet", 0, 12)]
)
def test_resumed_run_equals_the_uninterrupted_one(
    configure, base_weight, tmp_path, monkeypatch, arch, workers, steps
):
    common = {"workers": workers, "SubEpoch_val": arch == "bam", "batch_size": 8 if arch == "bam" else 12}
    train(configure(arch, **common, save_path=tmp_path / "whole"), CPU)
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Interrupted, match=r"SIGTERM in epoch .*--opts resume"):
            train(configure(arch, **common, save_path=tmp_path / "parts"), CPU)
    assert (tmp_path / "parts" / STATE).is_file()
    train(configure(arch, **common, save_path=tmp_path / "parts", resume=tmp_path / "parts"), CPU)
    assert_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    assert final_state(tmp_path / "whole")["progress"]["epoch"] == 2


def test_training_changes_the_heads_and_not_the_frozen_parts(configure, base_weight, tmp_path):
    config = configure("bam", batch_size=8)
    train(config, CPU)
    state, meta = load_checkpoint(tmp_path / "run" / LAST)
    start = build_network(config, fold_of(config).classes)
    frozen = base_weight.state_dict()
    assert all(torch.equal(state[name], frozen[name]) for name in frozen if name.startswith("backbone."))
    assert all(
        torch.equal(state[f"base_{name}"], value)
        for name, value in frozen.items()
        if name.startswith("head.")
    )
    trained = [name for name, parameter in start.named_parameters() if parameter.requires_grad]
    assert trained and all(name in state for name in trained)
    assert (meta["arch"], meta["fold"], meta["base_classes"]) == ("bam", 0, 15)
    assert (tmp_path / "run" / BEST).is_file()
    assert list((tmp_path / "run" / "board").iterdir())


def test_compiled_network_learns_what_the_plain_one_does(configure, base_weight, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # needs no C++ compiler
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        train(configure("bam", batch_size=8, epochs=1, compile=compiled, save_path=folder), CPU)
    assert_equal(final_state(tmp_path / "False"), final_state(tmp_path / "True"))


def test_base_learner_of_another_build_is_refused(configure, base_weight):
    stem = {"Method.backbone_options.stem": "standard"}
    with pytest.raises(CheckpointError, match=r"base\.safetensors: .*layer0"):
        train(configure("canet", **stem), CPU)


def test_nan_loss_names_the_batch(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fewseg.model.base.pspnet.PSPNet.losses",
        lambda self, logits, label: {"main": logits.sum() * float("nan")},
    )
    with pytest.raises(
        NotFiniteError, match=r"epoch 1, step 1: the loss is not finite \(main nan\); the batch: shapes_"
    ) as caught:
        train(configure("pspnet"), CPU)
    assert "\n" not in str(caught.value)


def test_training_stops_without_a_new_best(configure, monkeypatch):
    monkeypatch.setattr("fewseg.engine.training.validate.score_base_learner", lambda *_: _Worse(classes=5))
    reached = train(configure("pspnet", epochs=9, stop_interval=1, batch_size=60), CPU)
    assert (reached.best_epoch, reached.epoch) == (1, 3)


def test_epochs_without_a_validation_stop_nothing(configure, tmp_path):
    reached = train(configure("pspnet", epochs=3, val_freq=3, stop_interval=1, batch_size=60), CPU)
    assert (reached.best_epoch, reached.epoch) == (3, 3)
    assert (tmp_path / "run" / BEST).is_file()


class _Worse(IoUMeter):
    score = 1.0

    def mean_iou(self, *_, **__):
        _Worse.score /= 2
        return _Worse.score


def test_resuming_refuses_another_plan_and_a_wrong_path(configure, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        train(configure("pspnet", resume=tmp_path / "nowhere.state.pt"), CPU)
    train(configure("pspnet", batch_size=60, epochs=1, evaluate=False), CPU)
    with pytest.raises(CheckpointError, match=r"Train.batch_size \(was 60, now 30\)"):
        train(configure("pspnet", batch_size=30, epochs=1, resume=tmp_path / "run"), CPU)


def test_stage_two_says_how_to_train_the_base_learner(configure):
    with pytest.raises(
        CheckpointError, match=r"base learner of fold 0 is missing; train it by python train.py"
    ):
        train(configure("bam"), CPU)


def test_base_learner_of_another_fold_is_refused(configure, base_weight, tmp_path):
    config = configure("pspnet")
    meta = {**describe(config, fold_of(config).classes), "fold": 3}
    save_checkpoint(tmp_path / "base.safetensors", base_weight.state_dict(), meta)
    with pytest.raises(CheckpointError, match="is of fold 3, but fold 0 is wanted"):
        train(configure("bam"), CPU)


def test_a_training_says_what_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr("fewseg.util.live._EVERY", 0.0)
    loop, seen = small_loop(tmp_path), []
    validate = loop.validate

    def watched(epoch, check):
        check()
        seen.append(read_live(tmp_path))
        return validate(epoch, check)

    loop.validate = watched
    loop.board.scalars = lambda name, *_: seen.append(read_live(tmp_path)) if name == "lr" else None
    loop.settings = loop.settings.model_copy(update={"print_freq": 4})
    loop.run()
    assert not (tmp_path / LIVE).exists()
    validation = [facts for facts in seen if facts["phase"] == "validation"]
    assert [(facts["epoch"], facts["best_score"]) for facts in validation][:3] == [
        (1, None),
        (2, 0.1),
        (3, 0.4),
    ]
    steps = [(facts["epoch"], facts["step"]) for facts in seen if facts["phase"] == "steps"]
    assert steps[:3] == [(1, 3), (2, 1), (2, 5)]  # that of the step before
    facts = seen[-1]
    assert (facts["work"], facts["epochs"], facts["steps"]) == ("training", 6, IMAGES // BATCH)
    assert facts["seconds_a_step"] > 0 and 0 < facts["loss"] < 10 and facts["best_epoch"] == 5


def test_a_training_ends_after_its_steps_within_an_epoch(tmp_path):
    per_epoch = IMAGES // BATCH
    loop = small_loop(tmp_path, max_steps=2 * per_epoch + 1)
    reached, validated = loop.run(), []
    assert (reached.epoch, reached.best_score) == (3, 0.4) and loop.done
    assert loop.schedule.steps == 2 * per_epoch + 1 == loop._number()
    again = small_loop(tmp_path, max_steps=2 * per_epoch + 1)
    again.validate = lambda *_: validated.append(1)
    assert again.run() == reached and not validated


def test_steps_beyond_the_epochs_prolong_nothing(tmp_path):
    assert small_loop(tmp_path, epochs=2, max_steps=1000).run().epoch == 2


def test_a_training_that_ended_within_an_epoch_is_prolonged_there(configure, tmp_path):
    common = {"batch_size": 12, "evaluate": False, "power": 0}
    train(configure("pspnet", **common, epochs=2, save_path=tmp_path / "whole"), CPU)
    short = {**common, "epochs": 9, "save_path": tmp_path / "parts"}
    steps = len(train_batches(configure("pspnet", **common)))
    train(configure("pspnet", **short, max_steps=steps + 1), CPU)
    reached = train(configure("pspnet", **short, max_steps=2 * steps, resume=tmp_path / "parts"), CPU)
    assert reached.epoch == 2
    assert_equal(final_state(tmp_path / "whole")["model"], final_state(tmp_path / "parts")["model"])


def train_batches(config):
    return training_loader(config, training_data(config, fold_of(config), 0))[1]
