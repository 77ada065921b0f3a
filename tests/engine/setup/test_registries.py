"""A base learner and a protocol are known everywhere by one entry of their registry."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewseg.dataset.episodes.protocol import PROTOCOLS, Protocol, load_protocol
from fewseg.engine.setup.build import build_few_shot
from fewseg.engine.setup.data import fold_of, test_episodes, test_fold_of
from fewseg.engine.setup.protocols import training_protocol
from fewseg.engine.setup.run_path import run_folder
from fewseg.engine.setup.weights import start_weights
from fewseg.engine.training.snapshot import BEST
from fewseg.model.contract import BaseLearner
from fewseg.model.create import BASE_LEARNERS
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.resize import resize
from fewseg.util.checkpoint import file_hash
from fewseg.util.config import load_config
from fewseg.util.errors import ConfigError
from train import train


class Head(nn.Sequential):
    """A classifier without hidden layers."""

    def embed(self, x):
        return x

    def classify(self, feature):
        return self(feature)


class Toy(BaseLearner):
    """The smallest base learner."""

    def __init__(self, backbone, classes):
        super().__init__()
        self.backbone, self.classes = backbone, classes
        self.head = Head(nn.Conv2d(backbone.spec.channels("high"), classes, 1))

    def forward(self, image):
        logits = self.head(self.backbone(image, ("high",))["high"])
        return resize(logits, tuple(image.shape[-2:]))

    def losses(self, logits, label):
        return {"main": pixel_cross_entropy(logits, label)}

    def param_groups(self):
        return {"all": list(self.parameters())}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(BASE_LEARNERS, "toy", Toy)


def test_a_new_base_learner_is_trained_and_taken_over(toy, config_file, tmp_path):
    config = load_config(config_file, ["arch", "toy", "epochs", "1"])
    train(config, torch.device("cpu"))
    weight = str(tmp_path / "run" / BEST)
    few_shot = ["arch", "bam", "base", "toy", "base_weight", weight, "Method.options.channels", "16"]
    config = load_config(config_file, few_shot)
    split = fold_of(config).classes
    model = build_few_shot(config, split)
    assert isinstance(model.base_head, Head)
    assert start_weights(model, config, split) == (weight, file_hash(weight))


def test_folders_of_a_new_base_learner_have_no_shot(toy, tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text("Data: {data_set: pascal}\nMethod: {arch: toy}\n")
    assert run_folder(load_config(path)).name.startswith("split0")
    assert "shot" not in run_folder(load_config(path)).name


def test_a_new_protocol_is_trained_and_tested_under(monkeypatch, configure):
    with pytest.raises(ConfigError, match=r"--opts Data\.protocol: .*must be one of bam, .*, got 'toy'"):
        training_protocol(configure("bam", **{"Data.protocol": "toy"}))
    with pytest.raises(ConfigError, match=r"Test_Finetune\.test_protocol: must be one of bam, .*, got 'toy'"):
        test_fold_of(configure("bam", test_protocol="toy"))
    monkeypatch.setitem(PROTOCOLS, "toy", Protocol("toy", train_images="train", min_area=60, input_size=65))
    assert load_protocol("toy", "coco").min_area == 60
    for changes in ({"Data.protocol": "toy"}, {"test_protocol": "TOY"}):
        config = configure("bam", **changes)
        episodes = test_episodes(config, test_fold_of(config))
        assert episodes.fold.protocol.name == "toy" and episodes.manifests[0].protocol == "toy"
        assert episodes.load(next(iter(episodes)))[0].query.shape == (1, 3, 65, 65)
