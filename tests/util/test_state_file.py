"""State files: any damage is noticed, and files of earlier versions are read."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
import torch

from fewseg.util.errors import CheckpointError
from fewseg.util.state_file import load_training_state, save_training_state

STATE = {"model": {"a": torch.arange(50.0)}, "progress": {"step": 7}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "last.state.pt"
    save_training_state(path, STATE)
    return path


def test_remains_an_archive_that_torch_reads(path: Path) -> None:
    assert torch.load(path, weights_only=True)["progress"] == {"step": 7}
    assert zipfile.ZipFile(path).comment.startswith(b"sha256:")


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    draw = random.Random(1)
    positions = [*range(30), *draw.sample(range(len(content)), 200), *range(len(content) - 100, len(content))]
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            load_training_state(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [1, 30, 71, 93, 1000])
def test_cut_end_is_noticed(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_training_state(path)


def test_appended_bytes_are_noticed(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_training_state(path)


def test_file_without_checksum_is_read(path: Path) -> None:
    torch.save(STATE, path)
    assert torch.equal(load_training_state(path)["model"]["a"], STATE["model"]["a"])
