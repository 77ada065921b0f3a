"""MLC's baseline against the recorded runs of the published implementation."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close, assert_gradients, assert_main_loss, episode_of, fill

EVALUATIONS = ["eval_1shot", "eval_5shot", "eval_1shot_native_sizes"]
MARGIN = 1e-4
"""The logits are ten cosines that hardly differ with random weights: it is their difference that counts."""


def build(name: str) -> tuple[FewShotModel, object]:
    variant, case = load_case("mlc/resnet50", name)
    model = create_model("mlc", backbone="resnet50", shot=case.shot, image_size=97)
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(name: str) -> tuple[FewShotModel, object, Episode, Encoding, Encoding, Prediction]:
    """Run once what several tests only look at; the support is the first."""
    model, case = build(name)
    episode = episode_of(case)
    model.eval()
    with torch.no_grad():
        prediction = model(episode)
        query = model.encode_query(episode.query)
        support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
    return model, case, episode, query, support, prediction


def margin(logits: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """Return by how much the foreground's logit is above the background's, [B,H,W]."""
    return logits[:, 1] - logits[:, 0]


def assert_outputs(model: FewShotModel, case: object, prediction: Prediction, query: Encoding) -> None:
    arrays = case.arrays
    score = model.meta.segment(query, dict(prediction.parts)).logits
    background, foreground = prediction.parts["prototype"].unbind(1)
    assert_close(query["feature"][:, ::32], arrays["query_layer3"])
    assert_close(background, arrays["prototype_bg"])
    assert_close(foreground, arrays["prototype_fg"])
    for ours, recorded in ((score, "similarity_x10_lowres"), (prediction.logits, "logits")):
        assert_close(ours, arrays[recorded])
        assert_close(margin(ours), arrays[recorded].map(margin), MARGIN, 0)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_outputs(name: str) -> None:
    model, case, _, query, _, prediction = evaluated(name)
    assert_outputs(model, case, prediction, query)
    assert 0.05 < (margin(prediction.logits) > 0).float().mean() < 0.95


@pytest.mark.parametrize("name", EVALUATIONS)
def test_features_and_prototype_of_one_support(name: str) -> None:
    model, case, episode, _, support, _ = evaluated(name)
    with torch.no_grad():
        shallow = model.backbone(episode.query, ("layer2",))["layer2"]
        deep = model.support_features(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])["layer3.5"]
    assert_close(shallow[:, ::32], case.arrays["query_layer2"])
    assert_close(deep[:, ::64], case.arrays["support0_layer3"])
    assert_close(support["foreground"], case.arrays["prototype_fg_shot0"])


def test_loss_and_gradients() -> None:
    model, case = build("train_1shot")
    prediction = assert_main_loss(model, case)
    assert_gradients(model, case.meta["train"]["grads"])
    trained = {id(p) for group in model.param_groups().values() for p in group}
    assert {id(p) for p in model.parameters() if p.grad is not None} == trained
    assert len(trained) == len(case.meta["train"]["grads"])
    with torch.no_grad():
        assert_outputs(model, case, prediction, model.encode_query(episode_of(case).query))


@pytest.mark.parametrize(
    ("backbone", "total", "trained"),
    [("resnet50", 8_667_072, 8_636_096), ("resnet101", 27_659_200, 27_576_000)],
)
def test_parameter_counts(backbone: str, total: int, trained: int) -> None:
    model = create_model("mlc", backbone=backbone)
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(p.numel() for group in model.param_groups().values() for p in group) == trained
