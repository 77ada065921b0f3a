"""Published files become ours, whichever known network they hold."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fewseg.model import create_base_learner, create_model, list_models
from fewseg.model.checkpoint.published import to_published
from fewseg.util.checkpoint import load_checkpoint
from fewseg.util.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "convert_checkpoint.py"


@pytest.fixture(scope="module")
def convert():
    specification = importlib.util.spec_from_file_location("convert_checkpoint", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.convert


def test_base_learner_round_trip(tmp_path: Path, convert) -> None:
    network = create_base_learner("pspnet", backbone="resnet18", classes=16)
    published = {f"module.{k}": v for k, v in to_published(network, network.state_dict()).items()}
    assert any(name.startswith("module.encoder.0.") for name in published)
    torch.save({"epoch": 3, "state_dict": published, "optimizer": {}}, tmp_path / "best.pth")
    meta = convert(tmp_path / "best.pth", tmp_path / "ours.safetensors", {"fold": 2})
    assert (meta["arch"], meta["backbone"], meta["base_classes"], meta["fold"]) == (
        "pspnet",
        "resnet18",
        15,
        2,
    )
    state, read = load_checkpoint(tmp_path / "ours.safetensors")
    assert read == meta
    for name, value in network.state_dict().items():
        assert torch.equal(state[name], value), name


@pytest.mark.parametrize(("shot", "hidden"), [(1, 2), (5, 2), (5, 0)])
def test_bam_is_recognised_with_its_shots(tmp_path: Path, convert, shot: int, hidden: int) -> None:
    model = create_model("bam", backbone="vgg16", shot=shot, kshot_trans_dim=hidden)
    published = to_published(model, model.state_dict())
    assert "down_query.0.weight" in published
    torch.save({"state_dict": published}, tmp_path / "bam.pth")
    meta = convert(tmp_path / "bam.pth", tmp_path / "bam.safetensors", {})
    assert (meta["arch"], meta["backbone"], meta["shot"]) == ("bam", "vgg16", shot)
    state, _ = load_checkpoint(tmp_path / "bam.safetensors")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in list_models() if name not in ("bam", "oslsm")])
def test_every_method_is_recognised(tmp_path: Path, convert, name: str) -> None:
    table = {"embeddings": torch.randn(21, 300)} if name == "mianet" else {}
    backbone = "vgg16" if name in ("fss1000", "panet", "sgone") else "resnet50"  # as published
    model = create_model(name, backbone=backbone, **table)
    torch.save({"state_dict": to_published(model, model.state_dict())}, tmp_path / "published.pth")
    meta = convert(tmp_path / "published.pth", tmp_path / "ours.safetensors", {})
    assert meta["arch"] == name
    state, _ = load_checkpoint(tmp_path / "ours.safetensors")
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_a_checkpoint_in_two_files_is_joined(tmp_path: Path, convert) -> None:
    model = create_model("fss1000", backbone="vgg16")
    published = to_published(model, model.state_dict())
    for part in ("feature_encoder", "relation_network"):
        entries = {k.removeprefix(f"{part}."): v for k, v in published.items() if k.startswith(part)}
        torch.save(entries, tmp_path / f"{part}.pkl")
    files = [tmp_path / "relation_network.pkl", tmp_path / "feature_encoder.pkl"]
    meta = convert(files[0], tmp_path / "ours.safetensors", {}, files[1:])
    assert (meta["arch"], meta["backbone"]) == ("fss1000", "vgg16")
    state, _ = load_checkpoint(tmp_path / "ours.safetensors")
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pkl")
    with pytest.raises(CheckpointError, match="not one of several"):
        convert(files[0], tmp_path / "x.safetensors", {}, [tmp_path / "other.pkl"])


def test_foreign_file_is_named_with_the_nearest_network(tmp_path: Path, convert) -> None:
    torch.save({"state_dict": {"layer0.0.weight": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: no known network .*nearest is"):
        convert(tmp_path / "other.pth", tmp_path / "x.safetensors", {})
    assert not (tmp_path / "x.safetensors").exists()


def test_command_line_error_is_one_line(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, TOOL, tmp_path / "absent.pth"], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "absent.pth" in run.stderr
