"""Weights that training, test and prediction start from: what is wrong with them is said once, for all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fewseg.engine.evaluation.measure import measure
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.pretrained import load_pretrained
from fewseg.engine.setup.run_path import result_key
from fewseg.engine.setup.weights import describe, load_trained, start_weights
from fewseg.model import create_backbone
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.errors import CheckpointError


def damaged(state: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Change the first weight of a network's state."""
    first = next(iter(state))
    return {name: change(value) if name == first else value for name, value in state.items()}


def with_nan(weight: Tensor) -> Tensor:
    weight = weight.clone()
    weight.view(-1)[1:3] = torch.nan
    return weight


TROUBLE = [
    (with_nan, r"layer0.0.weight has 2 of 216 values that are NaN or infinite"),
    (Tensor.long, r"1 of the checkpoint's tensors are integers.*layer0.0.weight int64"),
]


@pytest.fixture
def opened(configure):
    config = configure("bam")
    split = fold_of(config).classes
    return config, split, build_network(config, split)


@pytest.mark.parametrize(("change", "said"), TROUBLE, ids=["nan", "whole numbers"])
class TestTrouble:
    def test_of_a_trained_model(self, opened, tmp_path, change, said):
        config, split, model = opened
        path = tmp_path / "bad.safetensors"
        save_checkpoint(path, damaged(model.state_dict(), change), describe(config, split))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(CheckpointError, match=f"{path}: .*{said}"):
            load_trained(model, path, describe(config, split))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_of_a_published_model(self, opened, tmp_path, change, said):
        config, split, model = opened
        torch.save(damaged(model.state_dict(), change), tmp_path / "bad.pth")
        with pytest.raises(CheckpointError, match=f"bad.pth: .*{said}"):
            load_trained(model, tmp_path / "bad.pth", describe(config, split))

    def test_of_a_base_learner(self, opened, configure, tmp_path, change, said):
        config, split, model = opened
        stage_one = configure("pspnet")
        state = build_network(stage_one, split).state_dict()
        path = tmp_path / "base.safetensors"
        save_checkpoint(path, damaged(state, change), describe(stage_one, split))
        with pytest.raises(CheckpointError, match=f"{path}: .*{said}"):
            start_weights(model, config, split)

    def test_of_a_pretrained_backbone(self, tmp_path, change, said):
        backbone = create_backbone("resnet18", width=8)
        torch.save(damaged(backbone.state_dict(), change), tmp_path / "imagenet.pth")
        with pytest.raises(CheckpointError, match=f"imagenet.pth: .*{said}"):
            load_pretrained(backbone, str(tmp_path / "imagenet.pth"))


def test_half_precision_is_converted_and_told(opened, tmp_path, caplog):
    config, split, model = opened
    path = tmp_path / "half.safetensors"
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    save_checkpoint(path, state, describe(config, split))
    load_trained(model, path, describe(config, split))
    assert f"{path}: " in caplog.text and "are float16" in caplog.text
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in model.state_dict().items())


def test_a_result_names_the_options_that_a_checkpoint_of_another_shot_runs_under(configure, tmp_path):
    trained, config = (
        configure("bam"),
        configure("bam", shot=2, **{"Test_Finetune.weight": tmp_path / "one.safetensors"}),
    )
    split = fold_of(trained).classes
    save_checkpoint(
        tmp_path / "one.safetensors", build_network(trained, split).state_dict(), describe(trained, split)
    )
    with pytest.warns(UserWarning, match="another number of supports"):
        result = next(measure([config], torch.device("cpu")))[0].result
    assert result.config["Method"]["options"]["shot_weights"] == "uniform"
    assert result.key == result_key(config)  # that of the config as the user gave it
