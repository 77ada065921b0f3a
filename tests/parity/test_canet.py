"""CANet against the recorded runs of the published implementation."""

import functools

import numpy as np
import pytest
import torch

from fewseg.model import create_model
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.encoding import group_encoding
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.resize import resize
from tests.parity import inputs
from tests.parity.cases import load_case
from tests.parity.comparison import (
    assert_close,
    assert_gradients,
    assert_statistics,
    episode_of,
    fill,
    without_dropout,
)

EVALUATIONS = ["eval_1shot", "eval_1shot_even"]
OUTPUT = 1e-4
"""The record was made in float64."""


def build(name: str, **options: object) -> tuple[FewShotModel, object]:
    variant, case = load_case("canet/resnet50", name)
    model = create_model("canet", backbone="resnet50", shot=case.shot, image_size=97, **options)
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(name: str) -> tuple[FewShotModel, object, Episode, Prediction]:
    """Run once what several tests only look at."""
    model, case = build(name, passes=4)
    episode = episode_of(case)
    model.eval()
    with torch.no_grad():
        return model, case, episode, model(episode)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_every_pass_and_the_output(name: str) -> None:
    _, case, _, prediction = evaluated(name)
    for number in range(4):
        assert_close(prediction.parts[f"pass{number}"], case.arrays[f"logits_iter{number}"], OUTPUT)
    assert_close(prediction.logits, case.arrays["logits_full_last"], OUTPUT)
    assert 0.5 < float((prediction.logits.argmax(1) == 1).float().mean()) < 0.75


@pytest.mark.parametrize("name", EVALUATIONS)
def test_features_and_prototype(name: str) -> None:
    model, case, episode, prediction = evaluated(name)
    with torch.no_grad():
        features = model.query_features(episode.query)
        reduced = model.meta.reduce_middle(features)
    assert_close(features["layer2"][:, ::64], case.arrays["query_layer2"], OUTPUT)
    assert_close(features["layer3"][:, ::128], case.arrays["query_layer3"], OUTPUT)
    assert_close(reduced[:, ::16], case.arrays["query_layer5"], OUTPUT)
    assert_close(prediction.parts["prototype"], case.arrays["prototype"], OUTPUT)


def run_with_history(model: FewShotModel, episode: Episode) -> Prediction:
    """Run a training step's forward pass with the recorded history."""
    image = torch.from_numpy(inputs.image(3600, 2, 41, 41, channels=2))
    query = model.encode_query(episode.query)
    support: Encoding = group_encoding(
        model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0]), 2, 1
    )
    guidance = model.meta.match(query, support)
    logits = model.meta.refine(model.meta.compare_all(query, guidance)[0], image.softmax(1))
    return Prediction(resize(logits, tuple(episode.query.shape[-2:])), {"logits": logits})


def test_loss_gradients_and_statistics() -> None:
    model, case = build("train", fix_bn=False)
    without_dropout(model).train()
    episode = episode_of(case)
    prediction = run_with_history(model, episode)
    losses = model.losses(prediction, episode)
    assert set(losses) == {"main"}
    losses["main"].backward()
    recorded = case.meta["train"]
    assert losses["main"].item() == pytest.approx(recorded["loss"], abs=1e-5)
    assert_close(prediction.parts["logits"], case.arrays["logits"], OUTPUT)
    assert_gradients(model, recorded["grads"], relative=5e-3)
    assert len(recorded["grads"]) == sum(len(group) for group in model.param_groups().values())
    assert_statistics(model, {k: v for k, v in recorded["bn_after"].items() if "running" in k})
    assert int(model.backbone.layer3[5].bn3.num_batches_tracked) == 2


def test_parameter_counts() -> None:
    model = create_model("canet", backbone="resnet50")
    assert sum(p.numel() for p in model.parameters()) == 19_037_762
    assert sum(p.numel() for group in model.param_groups().values() for p in group) == 10_494_466


def test_published_layout_is_complete() -> None:
    variant, _ = load_case("canet/resnet50", "eval_1shot")
    model = create_model("canet", backbone="resnet50")
    assert len(variant.manifest["state_dict"]) == len(model.state_dict()) == 288
    assert (
        np.prod(variant.manifest["state_dict"]["residule1.1.weight"])
        == model.meta.refine.residual0[1].weight.numel()
    )
