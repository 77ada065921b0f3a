"""Weight files, ours and published ones, that were damaged or hold something else."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fewseg.engine.setup.weights import load_trained
from fewseg.model import create_model
from fewseg.model.fewshot import FewShotModel
from fewseg.util.checkpoint import META_KEY, save_checkpoint
from tests.fuzz.damage import ODD_TEXTS, damaged
from tests.fuzz.outcome import accepted, cases, generator

META = {"arch": "panet", "backbone": "resnet18", "data_set": "shapes", "fold": 0, "base_classes": 15}
ODD: tuple[Any, ...] = (None, True, -1, 0.0, 1e30, "", "resnet50", [], {}, {"a": 1}, *ODD_TEXTS)
CONTENTS: tuple[Any, ...] = (
    *(None, 3, "weights", [], {}, {"state_dict": {}}, {"state_dict": 3}, {"model": None}, [torch.zeros(3)]),
    *(
        {"a": "b"},
        {"a": torch.zeros(3)},
        {1: torch.zeros(3)},
        {"state_dict": {"a": [1]}},
        torch.zeros(3),
        {"a": {}},
    ),
)
TEXTS = (
    b"",
    b"\0",
    b"no weights\n",
    b"\x80\x02",
    b"PK\x03\x04",
    b"i\n",
    b"I1\n.",
    b"version https://git-lfs",
    b"<html>",
)


def network() -> FewShotModel:
    torch.manual_seed(0)
    return create_model("panet", backbone="resnet18", image_size=65, base=None, backbone_options={"width": 8})


def edited(state: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """Return weights of which one is missing, misshaped, of another kind, or no number."""
    name = rng.choice(
        [name for name, value in state.items() if value.is_floating_point() and value.numel() > 1]
    )
    value = state[name]
    changed = (
        {},
        {name: value[:1].clone()},
        {name: value.reshape(-1)},
        {name: torch.full_like(value, float("nan"))},
        {name: torch.full_like(value, float("inf"))},
        {name: value.long()},
        {name: value > 0},
        {name: torch.zeros(0)},
        {name: value, f"{name}.extra": value.clone()},
        {name: value.to(torch.complex64)},
        {name: torch.full_like(value, 1e300, dtype=torch.float64)},
        {name: value, "a\nb": value.clone()},
    )
    return {key: value for key, value in state.items() if key != name} | rng.choice(changed)


@pytest.mark.parametrize("number", cases(60))
def test_checkpoints(number: int, tmp_path: Path) -> None:
    rng = generator("checkpoint", number)
    state = network().state_dict()
    torch.manual_seed(number + 1)
    ours = number % 2 == 0
    path = tmp_path / ("odd.safetensors" if ours else "odd.pth")
    write(path, state, rng, number // 2 % 4)
    model = network()
    for parameter in model.parameters():
        parameter.data.zero_()

    def read() -> None:
        load_trained(model, path, META)
        loaded = model.state_dict()
        assert all(value.isfinite().all() for value in loaded.values()), "weights are not finite"
        if number // 2 % 4 == 0:
            return  # a published file has no checksum: a turned bit of a weight cannot be told
        wrong = [name for name, value in loaded.items() if not torch.equal(value, state[name])]
        assert not wrong, f"{wrong[0]} is not what was saved"

    if not accepted(read, (path.name,)):
        assert not any(p.any() for p in model.parameters()), "a refused file has changed the network"


def write(path: Path, state: dict[str, torch.Tensor], rng: random.Random, kind: int) -> None:
    """Write a file with something wrong with it: bytes, weights, what it says of itself, or everything."""
    ours = path.suffix == ".safetensors"
    if kind == 0:
        save_checkpoint(path, state, META) if ours else torch.save(state, path)
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif kind == 1:
        changed = edited(state, rng)
        save_checkpoint(path, changed, META) if ours else torch.save(changed, path)
    elif kind == 2 and ours:
        meta = META | {rng.choice(list(META)): rng.choice(ODD)}
        odd = rng.choice((json.dumps(meta), json.dumps(rng.choice(ODD)), "{", "NaN", "[" * 5000, ""))
        save_file(state, path, metadata={META_KEY: odd})
    elif kind == 2:
        torch.save(rng.choice(CONTENTS), path)
    else:
        path.write_bytes(rng.choice(TEXTS))
