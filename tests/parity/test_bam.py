"""BAM against the recorded runs of the published implementation."""

import copy
import functools

import pytest
import torch

from fewseg.model import create_model
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.gram import gram_distance
from tests.parity.cases import load_case
from tests.parity.comparison import (
    agreement,
    assert_close,
    assert_gradients,
    episode_of,
    fill,
    without_dropout,
)

VARIANTS = {
    "bam/resnet50": {"backbone": "resnet50"},
    "bam/vgg16": {"backbone": "vgg16"},
    "bam/resnet50-coco-kshot0": {"backbone": "resnet50", "base_classes": 60, "kshot_trans_dim": 0},
}
EVALUATIONS = [
    ("bam/resnet50", "eval_1shot"),
    ("bam/resnet50", "eval_5shot"),
    ("bam/vgg16", "eval_1shot"),
    ("bam/vgg16", "eval_5shot"),
    ("bam/resnet50-coco-kshot0", "eval_5shot"),
]


@functools.cache
def evaluated(variant_name: str, case_name: str) -> tuple[FewShotModel, object]:
    """Build once what several tests only look at."""
    model, case = build(variant_name, case_name)
    return model.eval(), case


def build(variant_name: str, case_name: str) -> tuple[FewShotModel, object]:
    variant, case = load_case(variant_name, case_name)
    side = case.episode()["query"].shape[-1]
    model = create_model("bam", shot=case.shot, image_size=side, **VARIANTS[variant_name])
    fill(model, variant, case)
    return model, case


@pytest.mark.parametrize(("variant", "name"), EVALUATIONS)
def test_outputs(variant: str, name: str) -> None:
    model, case = evaluated(variant, name)
    with torch.no_grad():
        prediction = model(episode_of(case))
    assert_close(prediction.logits[:, :, ::2, ::2], case.arrays["final"], absolute=1e-5)
    assert_close(prediction.parts["meta"][:, :, ::2, ::2], case.arrays["meta"])
    assert_close(prediction.parts["base"][:, :, ::4, ::4], case.arrays["base"])
    assert_close(prediction.parts["prototype"], case.arrays["prototype"])
    assert_close(prediction.parts["prior"], case.arrays["prior"], absolute=2e-4)
    assert_close(prediction.parts["scene_distance"], case.arrays["est_val"])


@pytest.mark.parametrize(("variant", "name"), EVALUATIONS)
def test_ensemble_output_with_spread(variant: str, name: str) -> None:
    model, case = evaluated(variant, name)
    overrides = case.meta["notes"]["final_override"]["overrides"]
    model = copy.deepcopy(model)
    for part, values in overrides.items():
        weight = model.get_parameter(f"ensemble.{part}")
        weight.data = torch.tensor(values).view_as(weight)
    with torch.no_grad():
        final = model(episode_of(case)).logits
    assert 0.1 < (final.argmax(1) == 1).float().mean() < 0.9
    assert_close(final[:, :, ::2, ::2], case.arrays["final_override"], absolute=1e-5)


@pytest.mark.parametrize(("variant", "name"), EVALUATIONS)
def test_intermediates(variant: str, name: str) -> None:
    model, case = evaluated(variant, name)
    episode = episode_of(case)
    with torch.no_grad():
        features = model.query_features(episode.query)
        supports = [
            model.support_features(episode.support[:, 0, k], episode.support_mask[:, 0, k])
            for k in range(episode.shots)
        ]
        query = model.encode_query(episode.query)
    arrays = case.arrays
    for stage in ("layer2", "layer3", "layer4"):
        if f"query_{stage}" in arrays:
            step = features[stage].shape[1] // arrays[f"query_{stage}"].shape[1]
            assert_close(features[stage][:, ::step], arrays[f"query_{stage}"])
    if "support0_layer4_masked" in arrays:
        recorded = arrays["support0_layer4_masked"]
        assert_close(
            supports[0]["layer4"][:, :: supports[0]["layer4"].shape[1] // recorded.shape[1]], recorded
        )
    assert_close(query["feature"][:, ::32], arrays["down_query"])
    assert_close(query["base"], arrays["base_low"])
    if "est_sorted" in arrays:
        gram = torch.stack([model.ensemble.encode(s)["gram"] for s in supports], 1)
        ascending = gram_distance(query["gram"], gram).sort(1).values
        assert_close(ascending, arrays["est_sorted"])
        weighed = model.meta.shot_weights.network(ascending[:, :, None, None])
        assert_close(weighed.flatten(1), arrays["kshot_rw_out"])


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("bam/resnet50", "train_1shot"),
        ("bam/resnet50", "train_5shot"),
        ("bam/vgg16", "train_1shot"),
        ("bam/resnet50-coco-kshot0", "train_5shot"),
    ],
)
def test_losses_and_gradients(variant: str, name: str) -> None:
    model, case = build(variant, name)
    without_dropout(model).train()
    episode = episode_of(case)
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    sum(losses.values()).backward()
    recorded = case.meta["train"]
    for ours, theirs in (("main", "main_loss"), ("meta", "aux_loss1"), ("base", "aux_loss2")):
        assert losses[ours].item() == pytest.approx(recorded[theirs], abs=1e-5)
    assert_gradients(model, recorded["grads"])
    trained = {id(p) for group in model.param_groups().values() for p in group}
    assert {id(p) for p in model.parameters() if p.grad is not None} == trained
    assert agreement(prediction.logits.argmax(1)[:, ::2, ::2], case.arrays["prediction"]) > 0.999


def test_parameter_counts() -> None:
    for backbone, shot, trainable in (
        ("resnet50", 1, 4_917_254),
        ("resnet50", 5, 4_917_281),
        ("vgg16", 1, 4_524_038),
    ):
        model = create_model("bam", backbone=backbone, shot=shot)
        assert sum(p.numel() for g in model.param_groups().values() for p in g) == trainable
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
