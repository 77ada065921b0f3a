"""Errors and signals: the last complete step is kept, the first error is told, and a run goes on the same."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fewseg.engine.setup.interrupt as interrupt
import fewseg.engine.training.loop as training_loop
from fewseg.engine.setup.interrupt import Interrupted, StopRequest
from fewseg.engine.training.snapshot import STATE, Snapshot
from fewseg.engine.training.step import NotFiniteError
from fewseg.model.meta.canet.history import PredictionMemory
from fewseg.util.config.schema import Train
from fewseg.util.errors import DataError
from fewseg.util.state_file import load_training_state
from tests.engine.small_loop import small_loop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal():
    """Undo what started the tests: nohup ignores SIGHUP, and a shell's background job SIGINT."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    small_loop(folder).run()
    return load_training_state(folder / STATE)


def assert_goes_on(folder, whole):
    small_loop(folder).run()
    state = load_training_state(folder / STATE)
    assert state["progress"] == whole["progress"]
    assert all(torch.equal(value, whole["model"][name]) for name, value in state["model"].items())


def failing(call, at, error, after=False):
    """Return ``call``, which raises ``error`` the so many-th time."""
    counted = [0]

    def wrapped(*arguments, **options):
        counted[0] += 1
        if counted[0] == at and not after:
            raise error
        result = call(*arguments, **options)
        if counted[0] == at:
            raise error
        return result

    return wrapped


def failing_batches(loader, at):
    batches = loader.batches

    def some(check):
        yield from itertools.islice(batches(check), at)
        raise DataError("image.jpg: the image is corrupt")

    return some


def break_loader(loop, monkeypatch):
    monkeypatch.setattr(loop.loader, "batches", failing_batches(loop.loader, 5))
    return DataError, (1, 5)


def break_losses(loop, monkeypatch):
    error = torch.OutOfMemoryError("out of memory")
    monkeypatch.setattr(loop.model, "losses", failing(loop.model.losses, 9, error))
    return torch.OutOfMemoryError, (2, 2)


def break_validation(loop, monkeypatch):
    loop.validate = failing(loop.validate, 3, MemoryError("no memory"))
    return MemoryError, (3, 6)


def break_log(loop, monkeypatch):
    monkeypatch.setattr(loop.board, "scalars", failing(loop.board.scalars, 2, ConnectionError("gone")))
    return ConnectionError, (2, 4)


@pytest.mark.parametrize("breaks", [break_loader, break_losses, break_validation, break_log])
def test_any_error_leaves_the_last_complete_step(tmp_path, monkeypatch, caplog, whole, breaks):
    loop = small_loop(tmp_path, save_freq=100)
    error, position = breaks(loop, monkeypatch)
    with pytest.raises(error):
        loop.run()
    progress = Snapshot.read(tmp_path).progress
    assert (progress.epoch + 1, progress.step) == position
    assert f"an error ends the run in {progress}; go on with --opts resume {tmp_path}" in caplog.text
    assert_goes_on(tmp_path, whole)


def test_error_amid_an_update_keeps_the_earlier_snapshot(tmp_path, monkeypatch, caplog, whole):
    loop = small_loop(tmp_path)
    monkeypatch.setattr(loop.optimizer, "step", failing(loop.optimizer.step, 16, RuntimeError("lost"), True))
    with pytest.raises(RuntimeError, match="lost"):
        loop.run()
    assert (
        "epoch 3, step 3; no snapshot is written: the error came amid an update of the weights" in caplog.text
    )
    assert str(Snapshot.read(tmp_path).progress) == "epoch 3, step 0"
    assert_goes_on(tmp_path, whole)


def test_error_of_saving_does_not_hide_the_first(tmp_path, monkeypatch, caplog):
    loop = small_loop(tmp_path)
    break_losses(loop, monkeypatch)

    def full_disk(state, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    loop.settings = Train(epochs=6, save_freq=100, evaluate=False)
    with pytest.raises(torch.OutOfMemoryError):
        loop.run()
    assert "epoch 2, step 2; no snapshot" in caplog.text and "No space left" in caplog.text
    assert not (tmp_path / STATE).exists()


def test_weights_that_are_no_numbers_are_not_kept(tmp_path, monkeypatch, caplog):
    loop = small_loop(tmp_path)
    losses = loop.model.losses
    taken = []

    def spoiled(logits, label):
        taken.append(1)
        if len(taken) == 15:
            loop.model.linear.weight.data[0, 0] = torch.nan
            raise RuntimeError("first")
        return losses(logits, label)

    monkeypatch.setattr(loop.model, "losses", spoiled)
    with pytest.raises(RuntimeError, match="first"):
        loop.run()
    assert "linear.weight is NaN or infinite" in caplog.text
    assert str(Snapshot.read(tmp_path).progress) == "epoch 3, step 0"


@pytest.mark.parametrize(("at", "print_freq"), [(10, 10), (8, 10), (9, 1), (7, 1000)])
def test_loss_that_is_no_number_leaves_the_step_before(tmp_path, monkeypatch, whole, at, print_freq):
    loop = small_loop(tmp_path, save_freq=100)
    loop.settings = loop.settings.model_copy(update={"print_freq": print_freq})
    bad, before = f"epoch 2, step {at - 6}", f"epoch 2, step {at - 7}"
    with monkeypatch.context() as patch:
        patch.setattr(loop.model, "losses", failing_as_nan(loop.model, at))
        with pytest.raises(
            NotFiniteError, match=f"{bad}: the loss is not finite .main nan.; the batch: an im"
        ):
            loop.run()
    assert str(Snapshot.read(tmp_path).progress) == before
    assert_goes_on(tmp_path, whole)


def test_bad_loss_is_told_where_another_error_comes_before_the_look(tmp_path, monkeypatch, caplog, whole):
    loop = small_loop(tmp_path, save_freq=100)
    with monkeypatch.context() as patch:
        patch.setattr(loop.model, "losses", failing_as_nan(loop.model, 3))
        patch.setattr(loop.loader, "batches", failing_batches(loop.loader, 5))
        with pytest.raises(DataError):
            loop.run()
    assert "epoch 1, step 3: the loss is not finite (main nan)" in caplog.text
    assert "an error ends the run in epoch 1, step 2; go on" in caplog.text
    assert_goes_on(tmp_path, whole)


def failing_as_nan(model, at):
    """Let losses be NaN once, and spoil running statistics then and in all steps that follow."""
    losses, taken = model.losses, []

    def spoiled(logits, label):
        taken.append(1)
        if len(taken) >= at:
            model.norm.running_mean.data.fill_(torch.nan)
        return {"main": logits.sum() * torch.nan} if len(taken) == at else losses(logits, label)

    return spoiled


def test_error_before_the_first_step_writes_nothing(tmp_path, monkeypatch):
    loop = small_loop(tmp_path)
    monkeypatch.setattr(loop.loader, "batches", failing_batches(loop.loader, 0))
    with pytest.raises(DataError):
        loop.run()
    assert not (tmp_path / STATE).exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_signal_leaves_a_snapshot(tmp_path, monkeypatch, whole, number):
    loop = small_loop(tmp_path, save_freq=100)
    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "training_step", signalling(training_loop.training_step, 8, number))
        with pytest.raises(Interrupted, match=f"stopped by {number.name} in epoch 2, step 2; go on"):
            loop.run()
    assert_goes_on(tmp_path, whole)


def signalling(step, at, number):
    taken = []

    def signalled(*arguments, **options):
        taken.append(1)
        if len(taken) == at:
            os.kill(os.getpid(), number)
        return step(*arguments, **options)

    return signalled


def test_later_second_signal_stops_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now[0])
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # torchrun passes on what its group has got already
        with pytest.raises(Interrupted, match="SIGINT"):
            stop.check()
        now[0] += 2
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_hangup_stays_ignored_where_it_was():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_memory_takes_back_what_it_kept_since():
    memory = PredictionMemory()
    memory.remember([(1, 2), (3, 2)], torch.zeros(2, 2, 4, 4))
    before = memory.state()
    take_back = memory.watch()
    memory.remember([(3, 2), (5, 6)], torch.ones(2, 2, 4, 4).cumsum(1))
    memory.remember([(3, 2), (1, 2)], torch.ones(2, 2, 4, 4).cumsum(1) * 3)
    take_back()
    after = memory.state()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


TWO_PROCESSES = """
import os, signal, sys
from pathlib import Path
import pytest, torch
import fewseg.engine.training.loop as training_loop
from fewseg.engine.setup.interrupt import Interrupted
from fewseg.engine.training.snapshot import Snapshot
from train import train
from fewseg.util import distributed
from fewseg.util.config import load_config

torch.set_num_threads(1)
config, folder = sys.argv[1], Path(sys.argv[2])
device = distributed.start()
opts = "arch canet Method.options.channels 16 Method.options.history remembered Method.options.history_drop 0"
opts = [*opts.split(), "batch_size", "12", "evaluate", "False", "save_minutes", "1e-9", "save_path"]
train(load_config(config, [*opts, str(folder / "whole")]), device)
step, taken = training_loop.training_step, []

def stopping(*arguments, **options):
    taken.append(1)
    if len(taken) == 6 and distributed.rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*arguments, **options)

training_loop.training_step = stopping
parts = str(folder / "parts")
with pytest.raises(Interrupted):
    train(load_config(config, [*opts, parts]), device)
distributed.gather(None)  # the snapshot is written
train(load_config(config, [*opts, parts, "resume", "auto"]), device)
distributed.gather(None)
whole, resumed = Snapshot.read(folder / "whole"), Snapshot.read(parts)
assert len(whole.memories) == 2 and whole.memories[0] and whole.memories[0].keys() != whole.memories[1].keys()
for one, other in zip([whole.model, *whole.memories], [resumed.model, *resumed.memories], strict=True):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
distributed.gather(None)  # no process leaves while another one waits for it
distributed.stop()
"""


def test_two_processes_resume_with_a_memory_each(config_file, base_weight, tmp_path, configure, caplog):
    script = tmp_path / "worker.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{TWO_PROCESSES}")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(script), str(config_file), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    snapshot = Snapshot.read(tmp_path / "whole")
    assert snapshot._memory().keys() == snapshot.memories[0].keys() | snapshot.memories[1].keys()
    snapshot.tell_other_processes()
    assert "goes on with 1 processes instead of 2" in caplog.text and "remembered" in caplog.text
