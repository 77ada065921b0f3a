"""Checkpoint files: what goes in comes out, crashes leave the old file, unsafe files are refused."""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fewseg.util.checkpoint import (
    file_hash,
    first_line,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from fewseg.util.errors import CheckpointError
from fewseg.util.state_file import load_training_state, save_training_state

META = {"arch": "bam", "fold": 1, "score": 0.5, "base_classes": [6, 7], "epoch": 2.5}


class Attack:
    """Runs a command when unpickled by a careless reader."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch attacked",)


def complaint(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_round_trip(tmp_path: Path) -> None:
    shared_memory = torch.arange(6.0)
    state = {
        "a": shared_memory,
        "b": shared_memory[:3],
        "c": torch.arange(6).view(2, 3).T,
        "d": torch.tensor(3),
    }
    save_checkpoint(tmp_path / "new/folder/best.safetensors", state, META)
    read, meta = load_checkpoint(tmp_path / "new/folder/best.safetensors")
    assert meta == META
    assert all(torch.equal(read[name], state[name]) for name in state)
    assert load_weights(tmp_path / "new/folder/best.safetensors").keys() == read.keys()


def test_training_state_round_trip(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "step": 7,
        "best": 0.25,
        "seeds": [1, (2, None)],
    }
    save_training_state(tmp_path / "last.pt", state)
    read = load_training_state(tmp_path / "last.pt")
    assert read["seeds"] == [1, (2, None)]
    assert torch.equal(read["rng"], state["rng"])
    optimizer.load_state_dict(read["optimizer"])


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 1, "state_dict": state}])
def test_reads_published_files(tmp_path: Path, wrap: Callable[[dict], dict]) -> None:
    torch.save(wrap({"module.layer0.0.weight": torch.ones(2)}), tmp_path / "published.pth")
    assert load_weights(tmp_path / "published.pth")["module.layer0.0.weight"].tolist() == [1, 1]


class TestTrouble:
    @pytest.mark.parametrize("save", [save_checkpoint, save_training_state])
    def test_full_disk_keeps_the_previous_snapshot(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[..., None]
    ) -> None:
        path = tmp_path / "last"
        meta = (META,) if save is save_checkpoint else ()
        save(path, {"a": torch.zeros(3)}, *meta)
        before = path.read_bytes()

        def full_disk(handle: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full_disk)
        message = complaint(lambda p: save(p, {"a": torch.ones(3)}, *meta), path)
        assert "No space left on device" in message
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["last"]

    def test_torch_reports_a_full_disk_its_own_way(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full_disk(state: object, path: Path) -> None:
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nmore")

        monkeypatch.setattr(torch, "save", full_disk)
        message = complaint(lambda p: save_training_state(p, {}), tmp_path / "last.pt")
        assert "file write failed" in message

    def test_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert "cannot be written" in complaint(
            lambda p: save_checkpoint(p, {}, META), tmp_path / "file/best"
        )

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("read", [load_weights, load_training_state])
    def test_malicious_pickle(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object], zipped: bool
    ) -> None:
        monkeypatch.chdir(tmp_path)
        torch.save({"a": Attack()}, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
        assert "refused" in complaint(read, tmp_path / "evil.pth")
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(Attack(), protocol=2))
        assert "refused" in complaint(read, tmp_path / "evil.pth")
        assert not (tmp_path / "attacked").exists()

    @pytest.mark.parametrize("read", [load_weights, load_training_state, load_checkpoint, file_hash])
    def test_missing(self, tmp_path: Path, read: Callable[[Path], object]) -> None:
        assert "no such file" in complaint(read, tmp_path / "gone.pth")
        assert "is a folder" in complaint(read, tmp_path)

    @pytest.mark.parametrize("share", [0, 0.3, 0.9])
    def test_truncated(self, tmp_path: Path, share: float) -> None:
        ours, published = tmp_path / "ours.safetensors", tmp_path / "published.pth"
        save_checkpoint(ours, {"a": torch.zeros(999)}, META)
        torch.save({"a": torch.zeros(999)}, published)
        for path in (ours, published):
            content = path.read_bytes()
            path.write_bytes(content[: int(share * len(content))])
            assert "truncated" in complaint(load_weights, path)
        assert "truncated" in complaint(load_checkpoint, ours)

    def test_not_ours(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
        assert "no FewSeg metadata" in complaint(load_checkpoint, tmp_path / "foreign.safetensors")
        torch.save({"a": torch.zeros(1)}, tmp_path / "published.pth")
        assert "tools/convert_checkpoint.py" in complaint(load_checkpoint, tmp_path / "published.pth")
        torch.save({"epoch": 3}, tmp_path / "empty.pth")
        assert "holds no weights" in complaint(load_weights, tmp_path / "empty.pth")
        (tmp_path / "text.pth").write_text("no torch file")
        assert "no torch file or a damaged one" in complaint(load_weights, tmp_path / "text.pth")
        torch.save([1], tmp_path / "list.pth")
        assert "not a training state" in complaint(load_training_state, tmp_path / "list.pth")


class TestNumbers:
    """Weights that are no numbers, or are not stored as the network has them."""

    def read_both(self, tmp_path: Path, state: dict[str, torch.Tensor]) -> list[Callable[[], object]]:
        ours, published = tmp_path / "ours.safetensors", tmp_path / "published.pth"
        save_checkpoint(ours, state, META)
        torch.save(state, published)
        return [
            partial(load_checkpoint, ours),
            partial(load_weights, ours),
            partial(load_weights, published),
        ]

    @pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_not_finite(self, tmp_path: Path, wrong: float, dtype: torch.dtype) -> None:
        state = {"a": torch.zeros(4), "b": torch.tensor([1, wrong, 2, wrong], dtype=dtype)}
        for read in self.read_both(tmp_path, state):
            message = complaint(lambda path, read=read: read(), read.args[0])
            assert "b has 2 of 4 values that are NaN or infinite; its training diverged" in message

    def test_several_tensors_are_counted(self, tmp_path: Path) -> None:
        for names in ("ab", "abc"):
            state = {name: torch.full((3,), math.nan) for name in names}
            for read in self.read_both(tmp_path, state):
                message = complaint(lambda path, read=read: read(), read.args[0])
                assert "a has 3 of 3 values" in message
                assert f"infinite, as have {len(names) - 1} of its other tensors;" in message

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_another_precision_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: torch.dtype
    ) -> None:
        state = {"a": torch.zeros(4), "b": torch.ones(4, dtype=dtype), "num_batches_tracked": torch.tensor(3)}
        for read in self.read_both(tmp_path, state):
            caplog.clear()
            read()
            assert [record.getMessage() for record in caplog.records] == [
                f"{read.args[0]}: 1 of its 3 tensors, first b, are {str(dtype)[6:]}; "
                "they are converted to the network's float32"
            ]

    def test_several_precisions_are_named(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        state = {"a": torch.zeros(4, dtype=torch.float16), "b": torch.zeros(4, dtype=torch.bfloat16)}
        for read in self.read_both(tmp_path, state):
            caplog.clear()
            read()
            assert ", are bfloat16, float16; they are converted" in caplog.text

    def test_single_precision_and_counters_are_not_worth_a_word(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for read in self.read_both(tmp_path, {"a": torch.zeros(4), "num_batches_tracked": torch.tensor(3)}):
            read()
        assert not caplog.text


def test_file_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a").startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "y" * 300, "a\nb"])
@pytest.mark.parametrize("read", [load_checkpoint, load_weights])
def test_names_that_are_none(read, name):
    with pytest.raises(CheckpointError, match=r"^'.* is no path"):
        read(name)


def test_a_text_file_is_no_weights(tmp_path):
    for number, text in enumerate((b"no weights\n", b"i\n", b"I1\n.", b"version https://git-lfs")):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(text)
        with pytest.raises(CheckpointError, match=f"{number}.pth: "):
            load_weights(path)


def test_weights_have_names(tmp_path):
    torch.save({1: torch.zeros(3)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_weights(tmp_path / "odd.pth")


def test_metadata_lie_under_a_fixed_name_and_are_required(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", {"a": torch.ones(1)}, {"arch": "bam"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["fewseg"])["arch"] == "bam"
    save_file({"a": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="has no FewSeg metadata"):
        load_checkpoint(tmp_path / "b.safetensors")


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_weights_may_lie_under_a_key_of_a_published_file(tmp_path, key):
    torch.save({key: {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "a.pth")
    assert load_weights(tmp_path / "a.pth").keys() == {"a"}


def test_the_first_line_of_an_error_is_cut_at_200_characters() -> None:
    assert first_line(ValueError(f"\n{'x' * 300}\nmore")) == "x" * 200
    assert first_line(KeyError()) == "KeyError"
