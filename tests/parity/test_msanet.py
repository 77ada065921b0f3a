"""MSANet against the recorded runs of the published implementation."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.features import middle_features
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

EVALUATIONS = [
    (backbone, name)
    for backbone in ("resnet50", "vgg16")
    for name in ("eval_1shot", "eval_1shot_calibrated", "eval_5shot", "eval_5shot_calibrated")
]


def build(backbone: str, name: str) -> tuple[FewShotModel, object]:
    variant, case = load_case(f"msanet/{backbone}", name)
    model = create_model("msanet", backbone=backbone, shot=case.shot, image_size=97)
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(
    backbone: str, name: str
) -> tuple[FewShotModel, object, Episode, Encoding, list[Encoding], Prediction]:
    """Run once what several tests only look at."""
    model, case = build(backbone, name)
    episode = episode_of(case)
    with torch.no_grad():
        prediction = model.eval()(episode)
        query = model.encode_query(episode.query)
        supports = [
            model.encode_support(episode.support[:, 0, k], episode.support_mask[:, 0, k])
            for k in range(episode.shots)
        ]
    return model, case, episode, query, supports, prediction


def thinned(values: Tensor, recorded: np.ndarray) -> Tensor:
    """Keep every n-th channel, as the recording does."""
    return values[:, :: values.shape[1] // recorded.shape[1]]


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_outputs(backbone: str, name: str) -> None:
    _, case, _, _, _, prediction = evaluated(backbone, name)
    arrays, parts = case.arrays, prediction.parts
    assert_close(prediction.logits, arrays["final"])
    assert_close(parts["meta"], arrays["meta"])
    assert_close(parts["base"][:, :, ::4, ::4], arrays["base_sub4"])
    assert_close(parts["scene_distance"], arrays["est_val"], absolute=1e-6)
    assert_close(parts["prototype"], arrays["prototype"])
    assert_close(parts["prior"], arrays["prior"], absolute=2e-4)
    if "calibrated" in name:
        assert 0.1 < (prediction.logits.argmax(1) == 1).float().mean() < 0.9


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_guidance(backbone: str, name: str) -> None:
    model, case, episode, _, supports, prediction = evaluated(backbone, name)
    arrays, parts = case.arrays, prediction.parts
    assert_close(parts["similarity"], arrays["multi_similarity_raw"], absolute=2e-6)
    # The calibrated BatchNorm divides by standard deviations down to 0.003.
    fused_tolerance = 1e-3 if "calibrated" in name else 2e-5
    assert_close(parts["multi_similarity"][:, ::4], arrays["multi_similarity"], absolute=fused_tolerance)
    if "attention_sub8" in arrays:
        assert_close(parts["attention"][:, ::8], arrays["attention_sub8"])
    for shot in range(episode.shots):
        with torch.no_grad():
            features = model.support_features(episode.support[:, 0, shot], episode.support_mask[:, 0, shot])
            ungated = model.meta.support_reduction(middle_features(features))
        gate = arrays[f"attention_gate_shot{shot}"][:, :, None, None]
        assert_close(supports[shot]["attention"], gate.map(ungated.numpy().__mul__))


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_intermediates(backbone: str, name: str) -> None:
    model, case, episode, query, supports, _ = evaluated(backbone, name)
    arrays = case.arrays
    with torch.no_grad():
        features = model.query_features(episode.query)
        support = model.support_features(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
    for stage in ("layer2", "layer3", "layer4"):
        if f"query_{stage}_sub32" in arrays:
            assert_close(features[stage][:, ::32], arrays[f"query_{stage}_sub32"])
    if "support0_layer4_sub64" in arrays:
        assert_close(
            thinned(support["layer4"], arrays["support0_layer4_sub64"]), arrays["support0_layer4_sub64"]
        )
        assert_close(query["feature"][:, ::8], arrays["query_feat_sub8"])
    assert_close(query["base"], arrays["base_logits_lowres"])
    if "kshot_rw_output" in arrays:
        gram = torch.stack([encoding["gram"] for encoding in supports], 1)
        ascending = gram_distance(query["gram"], gram).sort(1).values
        assert_close(ascending, arrays["kshot_sorted_dissimilarity"], absolute=1e-6)
        weighed = model.meta.shot_weights.network(ascending[:, :, None, None])
        assert_close(weighed.flatten(1), arrays["kshot_rw_output"])


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
@pytest.mark.parametrize("name", ["train_1shot", "train_5shot"])
def test_losses_and_gradients(backbone: str, name: str) -> None:
    model, case = build(backbone, name)
    without_dropout(model).train()
    episode = episode_of(case)
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    (losses["main"] + losses["meta"]).backward()
    recorded = case.meta["train"]
    for ours, theirs in (("main", "main_loss"), ("meta", "aux_loss1"), ("base", "aux_loss2")):
        assert losses[ours].item() == pytest.approx(recorded[theirs], abs=1e-5)
    assert_gradients(model, recorded["grads"])
    assert agreement(prediction.logits.argmax(1), case.arrays["prediction"]) > 0.999


def test_decoder_input() -> None:
    model, case, *_, query, _, prediction = evaluated("resnet50", "eval_1shot")
    assert query["feature"].shape[1] == 256
    merged = []
    hook = model.meta.merge.register_forward_hook(lambda module, inputs, output: merged.append(output))
    with torch.no_grad():
        model.meta.segment(query, prediction.parts)
    hook.remove()
    assert_close(merged[0][:, ::8], case.arrays["init_merge_sub8"])
    with torch.no_grad():
        assert_close(model.meta.decoder.aspp(merged[0])[:, ::32], case.arrays["aspp_sub32"])
