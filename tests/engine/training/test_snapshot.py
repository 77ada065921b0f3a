"""What a snapshot holds, and what it tells where it does not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fewseg.engine.training.optimisation import create_optimizer
from fewseg.engine.training.snapshot import BEST, EARLIER, LAST, STATE, Progress, Snapshot
from fewseg.model.contract import MetaLearner, TrainingMemory
from fewseg.model.fewshot import FewShotModel
from fewseg.util.errors import CheckpointError
from fewseg.util.state_file import load_training_state, save_training_state
from tests.engine.small_loop import small_loop


class Noting(TrainingMemory):
    """Keeps what it was given."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.restored = dict(state)


class Remembering(FewShotModel):
    """Nothing but a memory."""

    memory = Noting()

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.meta = MetaLearner()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    small_loop(folder).run()
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def changed(folder: Path, change: Callable[[dict], object]) -> Snapshot:
    """Change the state in ``folder`` and read it again."""
    state = load_training_state(folder / STATE)
    change(state)
    save_training_state(folder / STATE, state)
    return Snapshot.read(folder)


def processes(monkeypatch: pytest.MonkeyPatch, number: int, rank: int) -> None:
    monkeypatch.setattr("fewseg.util.distributed.world_size", lambda: number)
    monkeypatch.setattr("fewseg.util.distributed.rank", lambda: rank)


def test_the_files_of_a_run_keep_their_names() -> None:
    names = ("best.safetensors", "last.safetensors", "last.state.pt", "best.earlier.safetensors")
    assert names == (BEST, LAST, STATE, EARLIER)


def test_progress_counts_steps_and_epochs_from_nought() -> None:
    start = Progress(seed=0)
    assert asdict(start) == {"seed": 0, "epoch": 0, "step": 0, "best_score": -1.0, "best_epoch": 0.0}
    later = start.after_step().after_step()
    assert (later.epoch, later.step, str(later)) == (0, 2, "epoch 1, step 2")
    later = later.after_epoch()
    assert (later.epoch, later.step, str(later)) == (1, 0, "epoch 2, step 0")
    assert str(later.after_epoch().after_step()) == "epoch 3, step 1"


def test_a_snapshot_is_read_from_its_folder_or_its_file(folder: Path) -> None:
    snapshot = Snapshot.read(folder)
    state = load_training_state(folder / STATE)
    assert snapshot.path == folder / STATE and Snapshot.read(folder / STATE).path == folder / STATE
    assert asdict(snapshot.progress) == state["progress"] and snapshot.best == state["best"]
    assert (snapshot.plan, snapshot.memories) == ({"epochs": 6}, [{}])
    assert (
        snapshot.model.keys() == state["model"].keys()
        and snapshot.optimizer.keys() == state["optimizer"].keys()
    )


def test_the_memory_of_an_earlier_version_is_that_of_its_one_process(folder: Path) -> None:
    memory = {"images": torch.arange(3)}

    def as_before(state: dict) -> None:
        del state["memories"], state["best"]
        state["memory"] = memory

    snapshot = changed(folder, as_before)
    assert len(snapshot.memories) == 1 and torch.equal(snapshot.memories[0]["images"], torch.arange(3))
    assert snapshot.best is None
    assert changed(folder, lambda state: state.pop("memory")).memories == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["progress"].update(epoch=-1), "progress.epoch: input should be greater than or"),
        (
            lambda state: state["progress"].update(best_score=float("inf")),
            "progress.best_score: input should be",
        ),
        (lambda state: state.update(progress=[1]), "progress: input should be a valid dictionary"),
        (
            lambda state: state["plan"].clear() or state["model"].update(a=3),
            "model.a: input should be an instance",
        ),
        (lambda state: state.pop("memories"), "memories is missing"),
        (
            lambda state: [state["progress"].pop(key) for key in ("step", "epoch")],
            "progress.epoch, progress.step is missing",
        ),
        (lambda state: state.update(best=5), "best: input should be a valid string"),
    ],
)
def test_a_field_that_is_wrong_is_named(folder: Path, change: Callable[[dict], object], message: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        changed(folder, change)
    assert str(raised.value).startswith(f"{folder / STATE}: malformed: {message}")
    assert str(raised.value).endswith("; copy it again")


@pytest.mark.parametrize("key", ["model", "optimizer", "progress", "plan"])
def test_what_lacks_a_field_is_no_snapshot(folder: Path, key: str) -> None:
    with pytest.raises(CheckpointError, match="no snapshot of a training run; name a folder that"):
        changed(folder, lambda state: state.pop(key))


def test_weights_are_restored_with_the_optimizers_moments_or_without(folder: Path) -> None:
    snapshot = Snapshot.read(folder)
    for moments in (True, False):
        loop = small_loop(folder.parent / "other")
        if moments:
            snapshot.restore(loop.model, loop.optimizer)
        else:
            snapshot.restore(loop.model, loop.optimizer, moments=False)
        for name, value in loop.model.state_dict().items():
            assert torch.equal(value, snapshot.model[name])
        assert bool(loop.optimizer.state_dict()["state"]) == moments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state["model"]["linear.bias"].fill_(torch.inf),
            "cannot be resumed: linear.bias has values",
        ),
        (lambda state: state["optimizer"].pop("state"), "malformed: 'state' is missing; copy it again"),
        (
            lambda state: state["optimizer"].update(state={0: 5}),
            "malformed: 'int' object has no attribute 'keys'",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_one_line(
    folder: Path, change: Callable[[dict], object], message: str
) -> None:
    snapshot, loop = changed(folder, change), small_loop(folder.parent / "other")
    with pytest.raises(CheckpointError) as raised:
        snapshot.restore(loop.model, loop.optimizer)
    assert str(raised.value).startswith(f"{folder / STATE}: {message}") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("number", "rank", "wanted"),
    [
        (2, 0, {"a": 1}),
        (2, 1, {"b": 2, "c": 3}),
        (1, 0, {"a": 1, "b": 2, "c": 3}),
        (3, 2, {"a": 1, "b": 2, "c": 3}),
    ],
)
def test_a_process_gets_its_own_memory_or_all_where_their_number_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, rank: int, wanted: dict[str, int]
) -> None:
    processes(monkeypatch, number, rank)
    model = Remembering()
    memories = [{"a": torch.tensor(1)}, {"b": torch.tensor(2), "c": torch.tensor(3)}]
    optimizer = create_optimizer({"all": list(model.parameters())}, lr=0.1)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    Snapshot(tmp_path, state, optimizer.state_dict(), Progress(seed=1), {}, memories).restore(
        model, optimizer
    )
    assert {name: int(value) for name, value in model.memory.restored.items()} == wanted


@pytest.mark.parametrize(
    ("before", "now", "rank", "told"),
    [(2, 3, 0, True), (2, 1, 0, True), (1, 2, 0, True), (2, 3, 1, False), (2, 2, 0, False), (0, 2, 0, False)],
)
@pytest.mark.parametrize("remembers", [False, True])
def test_another_number_of_processes_is_told_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    before: int,
    now: int,
    rank: int,
    told: bool,
    remembers: bool,
) -> None:
    processes(monkeypatch, now, rank)
    memory = {"a": torch.ones(1)} if remembers else {}
    Snapshot(tmp_path, {}, {}, Progress(seed=1), {}, [memory] * before).tell_other_processes()
    more = "; each starts from all that they remembered" if remembers else ""
    message = (
        f"the run goes on with {now} processes instead of {before}: the batches stay the same, the random "
        f"draws inside a step do not{more}"
    )
    assert [(record.name, record.message) for record in caplog.records] == [("fewseg.train", message)] * told
