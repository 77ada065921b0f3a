"""The fold that trains on all classes, whose models are tested on other data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fewseg.engine.setup.data import fold_of, test_episodes, test_fold_of
from fewseg.engine.setup.protocols import training_protocol
from fewseg.engine.setup.weights import tested_weights
from fewseg.util.config import load_config
from fewseg.util.errors import ConfigError, DataError
from tests.engine.conftest import ROOT, Configure
from train import train

PANET = {"base": "none", "ensemble": "none", "split": 4}
CPU = torch.device("cpu")


def test_a_method_and_a_base_learner_train_on_all_classes(configure: Configure, tmp_path: Path) -> None:
    short = {"split": 4, "max_steps": 1, "evaluate": False}
    train(configure("pspnet", **short, save_path=tmp_path / "base"), CPU)
    short |= {"evaluate": True, "base_weight": tmp_path / "base/last.safetensors"}
    reached = train(configure("bam", **short, save_path=tmp_path / "bam"), CPU)
    assert reached.epoch == 1 and reached.best_score < 0
    assert {path.name for path in (tmp_path / "bam").glob("*.safetensors")} == {"last.safetensors"}
    weights = load_file(tmp_path / "base/last.safetensors")
    assert 21 in {
        tensor.shape[0] for tensor in weights.values() if tensor.dim()
    }  # the background and 20 classes


def test_its_last_snapshot_is_the_tested_one(configure: Configure) -> None:
    protocol = training_protocol(configure("panet", **PANET))
    assert protocol.selection == "last" and tested_weights(protocol) == "last.safetensors"
    assert training_protocol(configure("panet", **PANET | {"split": 3})).selection == "novel"
    held_out = training_protocol(configure("panet", **{"Data.protocol_options.selection": "held_out_base"}))
    assert held_out.selection == "held_out_base"


def test_a_selection_on_novel_classes_is_refused(configure: Configure) -> None:
    asked = PANET | {"Data.protocol_options.selection": "novel"}
    with pytest.raises(ConfigError, match=r"selection: fold 4 of shapes trains on all classes, so no novel"):
        train(configure("panet", **asked), CPU)


def test_it_tests_nothing_on_its_own_data(configure: Configure) -> None:
    config = configure("panet", **PANET)
    assert len(fold_of(config).classes.base) == 20
    with pytest.raises(DataError, match=r"the fold has no novel classes to test; test its models on other"):
        test_episodes(config, test_fold_of(config))


@pytest.mark.parametrize("path", sorted((ROOT / "config/pascal").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_pascal_takes_it(path: Path) -> None:
    config = load_config(path, ["split", "4"])
    assert training_protocol(config).selection == "last"
