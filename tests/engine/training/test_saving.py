"""The files of a run: whichever write a crash prevents, a resumed run ends with the same files."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fewseg.engine.training.saving import Snapshots, memories_alone
from fewseg.engine.training.snapshot import BEST, LAST, STATE, Snapshot
from fewseg.engine.training.step import NotFiniteError
from fewseg.model.contract import Network
from fewseg.util.checkpoint import file_hash, load_checkpoint, save_checkpoint
from fewseg.util.errors import CheckpointError
from fewseg.util.live import LIVE
from fewseg.util.state_file import load_training_state, save_training_state
from tests.engine.small_loop import small_loop

FILES = {BEST, LAST, STATE, "board"}


class Killed(BaseException):
    """As if the process had ended here: no handler of errors may see it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    small_loop(folder).run()
    return folder


def kill_at(monkeypatch, number, done):
    """End the process at the so many-th change of a folder, before or after it is done."""
    counted = [0]

    def deadly(original):
        def call(*arguments, **options):
            if str(arguments[-1]).endswith((".part", LIVE)):
                return original(*arguments, **options)  # the clean-up that a killed process has not
            counted[0] += 1
            if counted[0] == number and not done:
                raise Killed
            result = original(*arguments, **options)
            if counted[0] == number:
                raise Killed
            return result

        return call

    for owner, name in ((os, "replace"), (os, "link"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, deadly(getattr(owner, name)))


def assert_same_end(folder, whole):
    assert {path.name for path in folder.iterdir()} == FILES
    for name in (BEST, LAST):
        assert file_hash(folder / name) == file_hash(whole / name), name
    one, other = (load_training_state(path / STATE) for path in (folder, whole))
    assert one.keys() == other.keys()
    assert (one["progress"], one["best"]) == (other["progress"], other["best"])
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    for number, moments in one["optimizer"]["state"].items():
        assert all(torch.equal(moments[key], other["optimizer"]["state"][number][key]) for key in moments)


def assert_pair(folder):
    """The weights are those of the state, and the best ones those that it names."""
    snapshot = Snapshot.read(folder)
    last, _ = load_checkpoint(folder / LAST)
    assert all(torch.equal(value, last[name]) for name, value in snapshot.model.items())
    if snapshot.best is not None:
        assert file_hash(folder / BEST) == snapshot.best
        assert load_checkpoint(folder / BEST)[1]["score"] == snapshot.progress.best_score


def begun(loop):
    """Start a run that goes on, without a step."""
    return loop.snapshots.begin(loop.model, loop.optimizer, loop.reached)


def run_killed_at(monkeypatch, folder, number, done):
    """Return whether a run, or its continuation, was killed."""
    with monkeypatch.context() as patch:
        kill_at(patch, number, done)
        try:
            small_loop(folder).run()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("done", [False, True])
def test_killed_at_any_write_and_resumed_ends_the_same(whole, tmp_path, monkeypatch, done):
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        if not run_killed_at(monkeypatch, folder, number, done):
            break
        assert (folder / STATE).is_file() or not (folder / BEST).exists()
        if (folder / STATE).is_file():
            begun(small_loop(folder))
            assert_pair(folder)
        small_loop(folder).run()
        assert_same_end(folder, whole)
    assert number > 15


def test_killed_again_and_again_ends_the_same(whole, tmp_path, monkeypatch):
    draw = random.Random(5)
    kills = 0
    while run_killed_at(monkeypatch, tmp_path / "run", draw.randint(1, 5), draw.random() < 0.5):
        kills += 1
        assert kills < 500
    assert kills > 3
    assert_same_end(tmp_path / "run", whole)


def test_finished_run_gets_stale_or_missing_weights_back(whole, tmp_path):
    for spoil in (lambda path: path.unlink(), lambda path: save_checkpoint(path, {"a": torch.ones(1)}, {})):
        folder = tmp_path / "run"
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        spoil(folder / LAST)
        small_loop(folder).run()
        assert_same_end(folder, whole)


def test_lost_best_weights_are_told_and_chosen_anew(tmp_path, caplog):
    small_loop(tmp_path, epochs=4).run()
    (tmp_path / BEST).unlink()
    small_loop(tmp_path, epochs=6).run()
    assert "best.safetensors: the weights of the best score so far (50.00, after epoch 4)" in caplog.text
    assert load_checkpoint(tmp_path / BEST)[1]["score"] == 0.7


def test_resumed_into_another_folder_takes_state_and_weights_along(tmp_path, whole):
    begun(small_loop(tmp_path / "new", state=whole))
    assert_pair(tmp_path / "new")
    assert (tmp_path / "new" / BEST).is_file()


def test_state_of_an_earlier_version_is_resumed(whole, tmp_path):
    folder = tmp_path / "run"
    small_loop(folder, epochs=4).run()
    state = load_training_state(folder / STATE)
    torch.save(
        {**{key: state[key] for key in ("model", "optimizer", "progress")}, "plan": {}, "memory": {}},
        folder / STATE,
    )
    small_loop(folder, epochs=6).run()
    assert load_checkpoint(folder / BEST)[1]["score"] == 0.7
    assert_pair(folder)


def test_file_system_without_second_names(whole, tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", unknown)
    assert run_killed_at(monkeypatch, tmp_path / "run", 11, True)
    small_loop(tmp_path / "run").run()
    assert_same_end(tmp_path / "run", whole)


def test_weights_that_are_no_numbers_replace_nothing(whole, tmp_path):
    folder = tmp_path / "run"
    loop = small_loop(folder)
    loop.run()
    before = {name: file_hash(folder / name) for name in (BEST, LAST, STATE)}
    loop.model.linear.bias.data[0] = torch.nan
    for save in (
        lambda: loop.snapshots.save_last(loop.model, loop.optimizer, loop.reached, [{}]),
        lambda: loop.snapshots.save_best(loop.model, loop.reached),
    ):
        with pytest.raises(NotFiniteError, match=r"linear\.bias is NaN or infinite"):
            save()
    assert before == {name: file_hash(folder / name) for name in (BEST, LAST, STATE)}


def test_snapshot_is_due_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    loop = small_loop(tmp_path, epochs=1, minutes=10)
    written = []
    save, step = loop.snapshots.save_last, loop._step

    def slow_step(batch):
        now[0] += 250
        return step(batch)

    def note(model, optimizer, progress, memories):
        written.append(progress.step)
        save(model, optimizer, progress, memories)

    monkeypatch.setattr(loop, "_step", slow_step)
    monkeypatch.setattr(loop.snapshots, "save_last", note)
    loop.run()
    assert written == [3, 6, 0]


@pytest.mark.parametrize("minutes", [10, 0.5, None])
@pytest.mark.parametrize("main", [True, False])
def test_snapshot_is_due_when_its_minutes_are_over_and_not_before(tmp_path, monkeypatch, minutes, main):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr("fewseg.util.distributed.is_main", lambda: main)
    snapshots = Snapshots(tmp_path, {}, {}, minutes)
    due = {}
    for waited in (0, 29.9, 30, 599.9, 600, 700):
        now[0] = 1000 + waited
        due[waited] = snapshots.due()
    first = {10: 600, 0.5: 30, None: 1000}[minutes]
    assert due == {waited: main and waited >= first for waited in due}


def test_files_say_what_they_are_of(whole):
    reached = [load_checkpoint(whole / name)[1] for name in (BEST, LAST)]
    own = [{key: meta[key] for key in ("arch", "epoch", "step", "score")} for meta in reached]
    assert own == [
        {"arch": "linear", "epoch": 4, "step": 6, "score": 0.7},  # reached before the epoch is counted
        {"arch": "linear", "epoch": 6, "step": 0, "score": 0.7},
    ]
    state = load_training_state(whole / STATE)
    assert state.keys() >= {"model", "optimizer", "progress", "plan", "memories", "best"}
    assert (state["plan"], state["memories"], state["best"]) == ({"epochs": 6}, [{}], file_hash(whole / BEST))


@pytest.mark.parametrize("score", [0.0, 0.4])
@pytest.mark.parametrize("found", [True, False])
def test_best_weights_of_an_earlier_version_are_those_that_lie_there(tmp_path, caplog, score, found):
    loop = small_loop(tmp_path, epochs=1)
    loop.run()
    if not found:
        (tmp_path / BEST).unlink()
    state = load_training_state(tmp_path / STATE)
    del state["best"]
    state["progress"]["best_score"] = score
    save_training_state(tmp_path / STATE, state)
    loop = small_loop(tmp_path, epochs=2)
    assert begun(loop).best_score == (score if found else -1.0)
    warned = [record.name for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["fewseg.train"] * (not found)


def test_what_other_processes_remember_is_not_made_up(monkeypatch):
    memory = {"a": torch.ones(1)}
    network = Network()
    for processes, remembers in ((1, memory), (1, {}), (3, {}), (2, memory)):
        monkeypatch.setattr(Network, "memory", SimpleNamespace(state=lambda own=remembers: own))
        monkeypatch.setattr("fewseg.util.distributed.world_size", lambda number=processes: number)
        if processes > 1 and remembers:
            with pytest.raises(RuntimeError, match="what the other processes remember is lost"):
                memories_alone(network)
        else:
            assert memories_alone(network) == [remembers] * processes


class TestMalformed:
    """States whose fields are not what they should be."""

    @pytest.fixture
    def folder(self, whole, tmp_path):
        shutil.copytree(whole, tmp_path / "run")
        return tmp_path / "run"

    def refused(self, folder, change):
        state = load_training_state(folder / STATE)
        change(state)
        save_training_state(folder / STATE, state)
        with pytest.raises(CheckpointError) as caught:
            small_loop(folder).run()
        message = str(caught.value)
        assert "\n" not in message and STATE in message
        return message

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *[("epoch", -1), ("epoch", "3"), ("epoch", 1.5), ("epoch", True), ("step", -4), ("seed", None)],
            *[
                ("best_score", float("nan")),
                ("best_score", "high"),
                ("best_epoch", float("inf")),
                ("more", 1),
            ],
        ],
    )
    def test_progress(self, folder, key, value):
        message = self.refused(folder, lambda state: state["progress"].update({key: value}))
        assert f"progress.{key}" in message

    @pytest.mark.parametrize("key", ["model", "optimizer", "progress", "plan", "memories"])
    @pytest.mark.parametrize("value", ["text", 3, None, [1], {"a": "b"}])
    def test_other_kind(self, folder, key, value):
        if (key, value) != ("plan", {"a": "b"}):
            self.refused(folder, lambda state: state.update({key: value}))

    @pytest.mark.parametrize("key", ["seed", "epoch", "step", "best_score", "best_epoch"])
    def test_missing_progress(self, folder, key):
        assert f"{key} is missing" in self.refused(folder, lambda state: state["progress"].pop(key))

    def test_missing_memories(self, folder):
        assert "memories is missing" in self.refused(folder, lambda state: state.pop("memories"))

    @pytest.mark.parametrize("key", ["model", "optimizer", "progress", "plan"])
    def test_missing(self, folder, key):
        assert "no snapshot" in self.refused(folder, lambda state: state.pop(key))

    def test_weights(self, folder):
        self.refused(folder, lambda state: state["model"].pop("linear.bias"))

    def test_weights_of_another_shape(self, folder):
        self.refused(folder, lambda state: state["model"].update({"linear.bias": torch.zeros(3)}))

    def test_weights_that_are_no_numbers(self, folder):
        assert "NaN" in self.refused(folder, lambda state: state["model"]["linear.bias"].fill_(torch.nan))

    @pytest.mark.parametrize(
        "change",
        [
            lambda optimizer: optimizer.pop("state"),
            lambda optimizer: optimizer.pop("param_groups"),
            lambda optimizer: optimizer["state"][0].pop("exp_avg"),
            lambda optimizer: optimizer["state"].update({0: {}, 99: {}}),
            lambda optimizer: optimizer["state"].update({0: 5}),
            lambda optimizer: optimizer["state"][0].update({"exp_avg": torch.zeros(9)}),
            lambda optimizer: optimizer["state"][0].update({"exp_avg": "text"}),
            lambda optimizer: optimizer["state"][0].update({"exp_avg": None}),
            lambda optimizer: optimizer["state"][0].update({"step": torch.zeros(2, 3)}),
            lambda optimizer: optimizer["state"][0]["exp_avg"].fill_(torch.inf),
            lambda optimizer: optimizer["param_groups"].clear(),
            lambda optimizer: optimizer["param_groups"][0].pop("betas"),
            lambda optimizer: optimizer["param_groups"][0].pop("name"),
            lambda optimizer: optimizer["param_groups"][0].update({"params": [0]}),
            lambda optimizer: optimizer["param_groups"][0].update({"params": [0, 1, 2, 17]}),
        ],
    )
    def test_optimizer(self, folder, change):
        self.refused(folder, lambda state: change(state["optimizer"]))
