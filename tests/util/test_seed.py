"""Seeds and the state of the random generators."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from fewseg.util.seed import random_state, set_random_state, set_seed
from fewseg.util.state_file import load_training_state, save_training_state


def draw() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))


def test_a_seed_fixes_every_generator() -> None:
    set_seed(3)
    first = draw()
    set_seed(3)
    assert draw() == first
    set_seed(4)
    assert draw() != first


def test_state_survives_a_file(tmp_path: Path) -> None:
    set_seed(3)
    draw()
    save_training_state(tmp_path / "last.pt", random_state())
    expected = [draw() for _ in range(3)]
    set_seed(9)
    set_random_state(load_training_state(tmp_path / "last.pt"))
    assert [draw() for _ in range(3)] == expected
