"""PANet against the recorded runs of the published implementation."""

import numpy as np
import pytest
import torch

from fewseg.model import create_model
from fewseg.model.contract import UNLABELLED, Episode
from fewseg.model.fewshot import FewShotModel
from tests.parity import inputs
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close, assert_gradients, episode_of, fill

VARIANT = "panet/vgg16"


def build(name: str) -> tuple[FewShotModel, object, Episode]:
    variant, case = load_case(VARIANT, name)
    model = create_model("panet", backbone="vgg16", shot=case.shot, image_size=97)
    fill(model, variant, case)
    return model, case, episode_with_other_ways(case)


def episode_with_other_ways(case: object) -> Episode:
    """The recorded two-way cases exclude a second region from the background."""
    episode = episode_of(case)
    if "other_mask" in case.meta["inputs"]:
        ways = case.meta["inputs"]["other_mask"]
        other = np.stack([np.stack([inputs.make(spec) for spec in way], 1) for way in ways], 1)
        unlabelled = (torch.from_numpy(other) == 1) & (episode.support_mask != 1)
        episode.support_mask[unlabelled] = UNLABELLED
    return episode


@pytest.mark.parametrize("name", ["eval_1way_1shot", "eval_1way_5shot", "eval_2way_1shot"])
def test_outputs(name: str) -> None:
    model, case, episode = build(name)
    model.eval()
    with torch.no_grad():
        prediction = model(episode)
        query = model.encode_query(episode.query)
        score = model.meta.segment(query, dict(prediction.parts)).logits
        support = model.support_features(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
    arrays = case.arrays
    assert_close(query["feature"][:, ::16], arrays["query_features"], 1e-4)
    assert_close(support["layer4.2"][:, ::16], arrays["support_features_w0s0"], 1e-4)
    assert_close(prediction.parts["prototype"], arrays["prototypes"], 1e-4)
    assert_close(score, arrays["scores_lowres"], 1e-4)
    assert_close(prediction.logits, arrays["logits"], 1e-4)


@pytest.mark.parametrize("name", ["train_1way_1shot", "train_2way_1shot"])
def test_losses_and_gradients(name: str) -> None:
    model, case, episode = build(name)
    model.train()
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    sum(losses.values()).backward()
    recorded = case.meta["train"]
    assert losses["main"].item() == pytest.approx(recorded["query_loss"], abs=1e-4)
    assert losses["align"].item() == pytest.approx(recorded["align_loss"], abs=1e-4)
    assert_close(prediction.logits, case.arrays["logits"], 1e-4)
    assert_gradients(model, recorded["grads"], relative=5e-3)


def test_parameter_count() -> None:
    model = create_model("panet", backbone="vgg16")
    assert sum(p.numel() for group in model.param_groups().values() for p in group) == 14_714_688


@pytest.mark.parametrize("name", ["1way", "2way"])
def test_metric(name: str) -> None:
    from fewseg.util.metrics import IoUMeter, intersection_union_target

    _, case = load_case("panet/metric", name)
    recorded, rule = case.arrays, case.meta["inputs"]
    meters = [IoUMeter(1 + len(rule["labels"])) for _ in range(rule["n_runs"])]
    position = [0] * rule["n_runs"]
    for run, classes, seed in rule["episode_list"]:
        pair = inputs.prediction_and_target(rule, seed, absent=position[run] % 4 == 3)
        position[run] += 1
        counts = intersection_union_target(*map(torch.from_numpy, pair), rule["ways"] + 1)
        meters[run].add(counts.where_labelled(), rows=[0, *(1 + rule["labels"].index(c) for c in classes)])
    class_iou = np.stack([meter.class_iou()[1:].numpy() for meter in meters])
    assert_close(class_iou.mean(0), recorded["class_iou_mean"], 1e-6, 0)
    assert_close(class_iou.std(0), recorded["class_iou_std"], 1e-6, 0)
    mean_iou = [meter.mean_iou() for meter in meters]
    assert_close(mean_iou, recorded["per_run_mean_iou"], 1e-6, 0)
    binary = [meter.foreground_background_iou() for meter in meters]
    assert_close(binary, recorded["per_run_binary_mean_iou"], 1e-6, 0)
    foreground = [(float(meter.class_iou()[0]), meter.pooled_iou()) for meter in meters]
    assert_close(np.mean(foreground, 0), recorded["binary_class_iou_mean"], 1e-6, 0)


def test_boxes() -> None:
    from fewseg.dataset.weak.annotations import largest_box

    _, case = load_case("panet/bbox", "bbox")
    labels = []
    for item in range(4):
        mask = (inputs.mask(300 + item, 1, 97, 97, None)[0] == 1).astype(np.uint8)
        instances = inputs.labels(350 + item, 1, 97, 97, 5, None)[0]
        labels.append(torch.from_numpy(largest_box(mask, instances)))
    found = torch.stack(labels)
    assert_close((found == 1).float(), case.arrays["fg_bbox"], 0, 0)
    assert_close((found == 0).float(), case.arrays["bg_bbox"], 0, 0)
