"""SG-One against the recorded runs of the published implementation."""

import functools

import pytest
import torch

from fewseg.model import create_model
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from tests.parity.cases import load_case
from tests.parity.comparison import (
    agreement,
    assert_close,
    assert_gradients,
    assert_main_loss,
    episode_of,
    fill,
)

VARIANT = "sgone/vgg16"
OUTPUT = 1e-4
"""The record was made in float64."""


def build(name: str, **options: object) -> tuple[FewShotModel, object]:
    variant, case = load_case(VARIANT, name)
    model = create_model("sgone", backbone="vgg16", shot=case.shot, image_size=97, **options)
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(name: str, kshot: str = "avg") -> tuple[FewShotModel, object, Episode, Encoding, Prediction]:
    """Run once what several tests only look at."""
    model, case = build(name, kshot=kshot)
    episode = episode_of(case)
    model.eval()
    with torch.no_grad():
        return model, case, episode, model.encode_query(episode.query), model(episode)


def assert_probabilities(prediction: Prediction, recorded: object) -> None:
    assert_close(prediction.logits.softmax(1), recorded, OUTPUT)
    assert 0.04 < float((prediction.logits.argmax(1) == 1).float().mean()) < 0.15


@pytest.mark.parametrize("name", ["eval_1shot", "eval_1shot_even"])
def test_one_shot(name: str) -> None:
    _, case, episode, query, prediction = evaluated(name)
    arrays = case.arrays
    assert episode.query.shape[-2:] != episode.support.shape[-2:]
    assert_close(query["guidance"][:, ::32], arrays["guidance_features"], OUTPUT)
    assert_close(query["feature"][:, ::8], arrays["segmentation_features"], OUTPUT)
    assert_close(prediction.parts["prototype"], arrays["prototype"], OUTPUT)
    assert_close(prediction.parts["similarity"], arrays["similarity"], OUTPUT)
    assert_close(prediction.parts["shot_logits"], arrays["logits_lowres"], OUTPUT)
    assert_probabilities(prediction, arrays["prob"])


def test_mean_of_five_shots() -> None:
    _, case, _, _, prediction = evaluated("eval_5shot")
    assert_close(prediction.parts["prototype"], case.arrays["avg_prototype"], OUTPUT)
    assert_close(prediction.parts["shot_logits"], case.arrays["avg_logits_lowres"], OUTPUT)
    assert_probabilities(prediction, case.arrays["avg_prob"])


def test_union_of_five_shots() -> None:
    _, case, _, _, prediction = evaluated("eval_5shot", "max")
    assert_close(prediction.parts["shot_logits"], case.arrays["max_logits_lowres"], OUTPUT)
    assert agreement(prediction.logits.argmax(1), case.arrays["max_pred"]) == 1
    assert agreement(evaluated("eval_5shot")[-1].logits.argmax(1), case.arrays["max_pred"]) < 1


@pytest.mark.parametrize("kshot", ["avg", "max"])
def test_loss_and_gradients(kshot: str) -> None:
    """Both rules for several shots are the same for one."""
    model, case = build("train", kshot=kshot)
    prediction = assert_main_loss(model, case)
    assert_close(prediction.parts["shot_logits"], case.arrays["logits_lowres"], OUTPUT)
    assert_gradients(model, case.meta["train"]["grads"], relative=5e-3)
    trained = {id(p) for group in model.param_groups().values() for p in group}
    assert {id(p) for p in model.parameters() if p.grad is not None} == trained


def test_parameter_count() -> None:
    model = create_model("sgone", backbone="vgg16")
    assert sum(p.numel() for group in model.param_groups().values() for p in group) == 18_992_194
