"""RARE against the recorded runs of the published implementation."""

import functools

import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.error_prone import resampled
from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.resize import resize_like
from tests.parity.cases import Figures, load_case
from tests.parity.comparison import (
    agreement,
    assert_close,
    assert_gradients,
    episode_of,
    fill,
    without_dropout,
)

EVALUATIONS = [(backbone, f"eval_{shot}shot") for backbone in ("resnet50", "vgg16") for shot in (1, 5)]
TRAININGS = [("resnet50", "train_1shot"), ("resnet50", "train_5shot"), ("vgg16", "train_1shot")]
NEAR_TIES = 8
"""Positions of a map at which another of several shots may win by a hair."""


def build(backbone: str, name: str) -> tuple[FewShotModel, object]:
    variant, case = load_case(f"rare/{backbone}", name)
    model = create_model("rare", backbone=backbone, shot=case.shot, image_size=97, first_shot_uses_mean=True)
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(backbone: str, name: str) -> tuple[FewShotModel, object, Episode, Encoding, Prediction]:
    """Run once what several tests only look at."""
    model, case = build(backbone, name)
    episode = episode_of(case)
    with torch.no_grad():
        return model, case, episode, model.eval().encode_query(episode.query), model(episode)


def assert_fused_close(fused: Tensor, recorded: Figures) -> None:
    """Compare maps that take, at every position, the most similar of several shots."""
    for form in recorded.forms:
        expected = torch.from_numpy(form)
        wrong = ((fused - expected).abs() > 1e-6 + 1e-4 * expected.abs()).any(1)
        assert int(wrong.sum()) <= NEAR_TIES


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_outputs(backbone: str, name: str) -> None:
    model, case, _, query, prediction = evaluated(backbone, name)
    arrays, parts = case.arrays, prediction.parts
    assert_close(prediction.logits, arrays["logits"])
    assert_close(parts["merged"][:, ::16], arrays["merged"], absolute=1e-5)
    assert_close(parts["prior"], arrays["prior"], absolute=2e-4)
    assert_close(parts["activation"], arrays["activation_fg"])
    assert_close(parts["error_prone_activation"], arrays["activation_error_prone"])
    with torch.no_grad():
        assert_close(model.meta.decoder.aspp(parts["merged"])[:, ::80], arrays["aspp"])
        assert_close(model.meta.segment(query, parts).logits, arrays["logits_lowres"])


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_laid_out_prototypes(backbone: str, name: str) -> None:
    _, case, _, _, prediction = evaluated(backbone, name)
    assert_fused_close(prediction.parts["fused"][:, ::16], case.arrays["fused_fg"])
    assert_fused_close(prediction.parts["error_prone_fused"][:, ::16], case.arrays["fused_error_prone"])


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_intermediates(backbone: str, name: str) -> None:
    model, case, episode, query, prediction = evaluated(backbone, name)
    arrays = case.arrays
    assert_close(query["feature"][:, ::16], arrays["query_feat"])
    with torch.no_grad():
        features = model.query_features(episode.query)
    for stage in ("layer2", "layer3", "layer4"):
        recorded = arrays[f"query_{stage}"]
        assert_close(features[stage][:, :: features[stage].shape[1] // recorded.shape[1]], recorded)
    for shot in range(episode.shots):
        mask = foreground(episode.support_mask[:, 0, shot])
        lost = (mask - resampled(mask, query["feature"])).clamp_min(0)
        assert_close(resize_like(mask, query["feature"]), arrays["mask_small"][:, shot])
        assert_close(resize_like(lost, query["feature"]), arrays["mask_error_prone"][:, shot])
        with torch.no_grad():
            support = model.encode_support(episode.support[:, 0, shot], episode.support_mask[:, 0, shot])
        for part, array in (
            ("prototype", "prototype_fg"),
            ("error_prone_prototype", "prototype_error_prone"),
        ):
            # With several shots the recording's first one was overwritten by the mean.
            ours = prediction.parts[part] if shot == 0 else support[part]
            assert_close(ours, arrays[array][:, shot])


@pytest.mark.parametrize(("backbone", "name"), TRAININGS)
def test_losses_and_gradients(backbone: str, name: str) -> None:
    model, case = build(backbone, name)
    model.meta.pick_pixel = lambda candidates, generator: candidates // 2
    without_dropout(model).train()
    episode = episode_of(case)
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    recorded = case.meta["train"]
    names = {"main": "main", "error_prone": "error_prone (alpha-weighted CE)", "contrast": "contrast"}
    assert set(losses) == set(names)
    for ours, theirs in names.items():
        assert losses[ours].item() == pytest.approx(recorded[theirs], abs=1e-5)
    losses["main"].backward(retain_graph=True)
    assert_gradients(model, recorded["grads_main_only"])
    (losses["error_prone"] + losses["contrast"]).backward()
    assert_gradients(model, recorded["grads"])
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        name for name, p in model.named_parameters() if not name.startswith("backbone.")
    }
    assert agreement(prediction.logits.argmax(1), case.arrays["pred"]) > 0.999


def test_parameter_counts() -> None:
    for backbone, trainable in (("resnet50", 6_360_322), ("vgg16", 5_967_106)):
        model = create_model("rare", backbone=backbone)
        assert sum(p.numel() for group in model.param_groups().values() for p in group) == trainable
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
