"""The record of a training that has ended: when it is written, what it holds, when it goes."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch

import fewseg.engine.training.loop as training_loop
from fewseg.engine.setup.interrupt import Interrupted
from fewseg.engine.setup.run_path import run_key
from fewseg.engine.training.finished import FINISHED, Finished, peak_gib, write_finished
from fewseg.engine.training.snapshot import BEST, LAST, STATE, Origin, Snapshot
from fewseg.util.checkpoint import file_hash, load_checkpoint, save_checkpoint
from fewseg.util.config import load_config
from fewseg.util.errors import CheckpointError
from fewseg.util.state_file import load_training_state, save_training_state
from tests.engine.small_loop import CPU, small_loop
from train import train

NAMES = (BEST, LAST)


@pytest.fixture
def finish(config_file, tmp_path):
    """Return a function that ends a training of milliseconds, and returns its loop."""
    config = load_config(config_file, ["arch", "pspnet"])

    def run(**settings):
        loop = small_loop(tmp_path)
        loop.settings = loop.settings.model_copy(update=settings)
        loop.run()
        write_finished(config, loop)
        return loop

    return run


def stop_in_the_first_step(monkeypatch):
    original = training_loop.training_step

    def step(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    monkeypatch.setattr(training_loop, "training_step", step)


def test_record_keeps_the_base_learner_of_the_first_start(configure, base_weight, tmp_path, monkeypatch):
    config, run = configure("bam", epochs=1, batch_size=20), tmp_path / "run"
    base = tmp_path / "base.safetensors"
    first = file_hash(base)
    with monkeypatch.context() as patch:
        stop_in_the_first_step(patch)
        with pytest.raises(Interrupted):
            train(config, CPU)
    assert Finished.read(run) is None and not (run / FINISHED).exists()
    state, meta = load_checkpoint(base)
    save_checkpoint(base, {name: value + 1 for name, value in state.items()}, meta)
    resumed = config.with_values(Train={"resume": "auto"})
    with pytest.raises(CheckpointError, match=rf"other files.* base learner \(was {first[:8]}, .*--allow-"):
        train(resumed, CPU)
    reached = train(resumed, CPU, allow_changes=True)
    finished = Finished.read(run)
    assert finished.base_learner == first != file_hash(base) and finished.mined_labels is None
    assert finished.key == run_key(config) and finished.epochs == 1 == finished.processes
    assert finished.weights == {name: file_hash(run / name) for name in NAMES}
    assert (finished.best_score, finished.best_epoch) == (reached.best_score, reached.best_epoch) != (-1, 0)
    stored = load_checkpoint(run / LAST)[0]
    assert 0 < finished.parameters <= sum(value.numel() for value in stored.values())
    assert finished.seconds_a_step > 0 and 0.05 < finished.peak_gib < 100


def test_training_that_goes_on_otherwise_is_that_of_no_config(configure, tmp_path):
    config = configure("pspnet", epochs=1, batch_size=40)
    train(config, CPU)
    assert Finished.read(tmp_path / "run").key == run_key(config)
    longer = config.with_values(Train={"resume": "auto", "epochs": 2})
    train(longer, CPU)
    finished = Finished.read(tmp_path / "run")
    assert (finished.key, finished.epochs) == (None, 2)
    train(longer, CPU)  # with its own settings now, it stays what it is
    assert Finished.read(tmp_path / "run").key is None


@pytest.mark.parametrize(
    ("overwrite", "changes"), [(True, {}), (False, {"resume": "auto", "epochs": 2})], ids=["anew", "longer"]
)
def test_record_goes_when_the_run_begins_anew_or_goes_on(
    configure, tmp_path, monkeypatch, overwrite, changes
):
    config = configure("pspnet", epochs=1, batch_size=40)
    train(config, CPU)
    stop_in_the_first_step(monkeypatch)
    with pytest.raises(Interrupted):
        train(config.with_values(Train=changes), CPU, overwrite=overwrite)
    assert not (tmp_path / "run" / FINISHED).exists()


def test_nothing_left_to_do_keeps_the_record_or_makes_it(finish, tmp_path):
    assert finish().reached.epoch == 6
    written = (tmp_path / FINISHED).read_bytes()
    finish()
    assert (tmp_path / FINISHED).read_bytes() == written
    (tmp_path / FINISHED).unlink()
    finish()
    late = Finished.read(tmp_path)
    assert late.seconds_a_step is None
    expected = {**json.loads(written), "seconds_a_step": None, "peak_gib": late.peak_gib}
    assert json.loads((tmp_path / FINISHED).read_text()) == expected
    stale = {**expected, "weights": {BEST: "0" * 64}}
    (tmp_path / FINISHED).write_text(json.dumps(stale))
    finish()
    assert Finished.read(tmp_path).weights == late.weights != stale["weights"]


def test_training_that_stops_early_has_ended(finish, tmp_path):
    stopped = finish(stop_interval=0)  # the scores are 0.1, 0.4, 0.2
    assert stopped.done and stopped.reached.epoch == 3
    finished = Finished.read(tmp_path)
    assert (finished.epochs, finished.best_score, finished.best_epoch) == (3, 0.4, 2)


def test_training_without_validation_has_no_best(finish, tmp_path):
    finish(evaluate=False)
    finished = Finished.read(tmp_path)
    assert finished.best_score is None and finished.weights.keys() == {LAST}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"epochs": 6', '"epochs": "6"'),
        lambda text: text.replace('"weights"', '"weight"'),
        lambda text: "[]",
        lambda text: "[" * 100_000,
    ],
    ids=["cut", "type", "field", "list", "deep"],
)
def test_damaged_record_counts_as_none(finish, tmp_path, caplog, damage):
    finish()
    path = tmp_path / FINISHED
    path.write_text(damage(path.read_text()))
    assert Finished.read(tmp_path) is None
    assert [str(path) in message and "counts as missing" in message for message in caplog.messages[-1:]] == [
        True
    ]


def test_states_of_earlier_versions_have_no_known_origin(finish, tmp_path):
    finish()
    state = load_training_state(tmp_path / STATE)
    assert Snapshot.read(tmp_path).origin == Origin()
    save_training_state(tmp_path / STATE, {name: value for name, value in state.items() if name != "origin"})
    assert Snapshot.read(tmp_path).origin == Origin()
    save_training_state(tmp_path / STATE, {**state, "origin": {"base_learner": 3}})
    with pytest.raises(CheckpointError, match="malformed: base_learner"):
        Snapshot.read(tmp_path)


def test_peak_memory_is_that_of_the_process():
    before = peak_gib(CPU)
    block = torch.ones(2**28)  # 1 GiB
    assert peak_gib(CPU) >= max(before, block.nbytes / 2**30) and peak_gib(CPU) < before + 2
