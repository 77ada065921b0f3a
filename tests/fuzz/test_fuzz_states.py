"""States of a training run that were damaged, or hold other fields than a run writes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from fewseg.engine.training.optimisation import create_optimizer
from fewseg.engine.training.snapshot import STATE, Snapshot
from fewseg.model import create_model
from fewseg.model.fewshot import FewShotModel
from fewseg.util.state_file import load_training_state, save_training_state
from tests.fuzz.damage import damaged
from tests.fuzz.outcome import accepted, cases, generator

PLAN = {"arch": "panet", "backbone": "resnet18", "epochs": 3, "batch_size": 4}
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), "", "7", "a\nb", [], [1], {}, {"a": 1}),
    *(torch.zeros(0), torch.tensor(float("nan")), torch.zeros(3, dtype=torch.complex64), {1: 2}, (1, 2)),
)


def run() -> tuple[FewShotModel, torch.optim.Optimizer]:
    """Return a small network after a step."""
    torch.manual_seed(0)
    model = create_model(
        "panet", backbone="resnet18", image_size=65, base=None, backbone_options={"width": 8}
    )
    optimizer = create_optimizer(
        model.param_groups(),
        "adamw",
        lr=1e-3,
        momentum=0.9,
        weight_decay=0.01,
        rules=model.meta.learning.group_rules,
    )
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, with its state."""
    folder = tmp_path_factory.mktemp("run")
    model, optimizer = run()
    progress = {"seed": 3, "epoch": 1, "step": 2, "best_score": 0.5, "best_epoch": 1.0}
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": progress}
    save_training_state(folder / STATE, {**state, "plan": PLAN, "memories": [{}], "best": None})
    return folder


def edit(state: dict[str, Any], rng: random.Random) -> None:
    """Change a field of a state, or a field of a field."""
    place: Any = state
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        inner = [value for value in place.values() if isinstance(value, dict) and value]
        inner += [
            part
            for value in place.values()
            if isinstance(value, list)
            for part in value
            if isinstance(part, dict)
        ]
        if inner:
            place = rng.choice(inner)
    key, odd = rng.choice([*place, "new"]), rng.choice(ODD)
    kind = rng.randrange(5)
    if kind == 0:
        place.pop(key, None)
    elif kind == 1:
        place[rng.choice(("extra", 0, "state"))] = odd
    elif kind == 2 and isinstance(place.get(key), torch.Tensor):
        place[key] = rng.choice(
            (place[key].reshape(-1)[:1], place[key].double().cumsum(0), place[key] * float("nan"))
        )
    else:
        place[key] = odd


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors included."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("number", cases(60))
def test_states(number: int, folder: Path, tmp_path: Path) -> None:
    rng = generator("state", number)
    path = tmp_path / STATE
    good = load_training_state(folder / STATE)
    state = load_training_state(folder / STATE)
    if number % 2:
        path.write_bytes(damaged((folder / STATE).read_bytes(), rng))
    else:
        edit(state, rng)
        save_training_state(path, state)
    model, optimizer = run()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def read() -> None:
        snapshot = Snapshot.read(path)
        snapshot.restore(model, optimizer)
        check_progress(snapshot)
        if number % 2:
            assert same(load_training_state(path), good), "holds other values than were written"
        model.zero_grad()
        sum(p.square().sum() for p in model.parameters()).backward()
        optimizer.step()
        assert all(v.isfinite().all() for v in model.state_dict().values()), "not finite after a step"

    if not accepted(read, (STATE,)) and number % 2:
        assert same(dict(model.state_dict()), before), "a damaged state has changed the network"


def check_progress(snapshot: Snapshot) -> None:
    reached = snapshot.progress
    for name in ("seed", "epoch", "step"):
        value = getattr(reached, name)
        assert type(value) is int and 0 <= value < 2**63, f"{name} {value}"
    for name in ("best_score", "best_epoch"):
        value = getattr(reached, name)
        assert type(value) in (int, float) and -1 <= value < 1e9, f"{name} {value}"
