"""Few training images: a line that says what to expect, and which key changes it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import fewseg.engine.training.expectations as expectations
from fewseg.engine.setup.data import fold_of, training_data
from fewseg.engine.setup.pretrained import RANDOM
from fewseg.engine.training.expectations import say_what_to_expect
from train import train


def said(caplog, config, origin):
    fold = fold_of(config)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="fewseg"):
        say_what_to_expect(config, fold, len(training_data(config, fold, 0)), origin)
    assert all("\n" not in record.getMessage() for record in caplog.records)
    return [record.getMessage() for record in caplog.records], fold


@pytest.mark.parametrize("arch", ["bam", "pspnet"])
@pytest.mark.parametrize(("rule", "other"), [("remove", "background"), ("background", "remove")])
def test_images_with_novel_classes_are_counted(configure, caplog, arch, rule, other):
    (line,), fold = said(caplog, configure(arch, novel_in_train=rule), "initmodel/resnet18.pth")
    novel = fold.train_areas.at_least(fold.classes.novel).any(axis=1)
    assert f"novel_in_train {rule}: {novel.sum()} of {len(novel)} training images" in line
    assert f"--opts novel_in_train {other}" in line
    assert rule == "remove" or f"leaves the {len(novel) - novel.sum()} others" in line


def test_folds_are_named_where_every_image_shows_a_novel_class(configure, caplog, monkeypatch):
    monkeypatch.setattr(
        "fewseg.dataset.lists.area_index.AreaIndex.at_least",
        lambda self, ids, *_: np.ones((len(self.names), 1)),
    )
    (line,), _ = said(caplog, configure("pspnet"), "a file")
    assert "none is without one, so other folds may serve better (folds.txt)" in line


def test_random_weights_promise_little(configure, caplog):
    lines, _ = said(caplog, configure("panet"), RANDOM)
    assert len(lines) == 2
    assert "random weights and " in lines[0] and "--opts pretrained imagenet" in lines[0]


def test_nothing_is_said_of_enough_images(configure, caplog, monkeypatch):
    monkeypatch.setattr(expectations, "FEW_IMAGES", 10)
    assert said(caplog, configure("pspnet"), RANDOM)[0] == []


def test_training_says_it(configure, caplog, tmp_path):
    config = configure("pspnet", epochs=1, evaluate=False)
    with caplog.at_level(logging.WARNING, logger="fewseg"):
        train(config, torch.device("cpu"))
    assert "expect little more than the baselines" in caplog.text
