"""PANet against the recorded runs of the published implementation."""

import json

import numpy as np
import pytest
import torch

from fewseg.model import create_model
from fewseg.model.contract import UNLABELLED, Episode
from fewseg.model.fewshot import FewShotModel
from tests.parity.recorded import SHARED, assert_close, assert_gradients, episode_of, fill, load_case, reader

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
        import reference_inputs

        other = np.stack(
            [
                np.stack([reference_inputs.mask(*spec[1:]) for spec in way], 1)
                for way in case.meta["inputs"]["other_mask"]
            ],
            1,
        )
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

    reader()
    import reference_inputs

    folder = SHARED / "parity" / "panet" / "metric"
    inputs = json.loads((folder / f"{name}.json").read_text())["inputs"]
    recorded = np.load(folder / f"{name}.npz")
    height, width = inputs["size"]
    meters = [IoUMeter(1 + len(inputs["labels"])) for _ in range(inputs["n_runs"])]
    position = [0] * inputs["n_runs"]
    for run, classes, seed in inputs["episode_list"]:
        agree = np.random.RandomState(seed).rand(height, width) < 0.6
        values = inputs["ways"] + 1
        predicted = reference_inputs.labels(seed + 1, 1, height, width, values, None)[0]
        target = reference_inputs.labels(seed + 2, 1, height, width, values, 255)[0]
        predicted = np.where(agree & (target != 255), target, predicted)
        if position[run] % 4 == 3:
            target[target == 1] = 0
        position[run] += 1
        counts = intersection_union_target(torch.from_numpy(predicted), torch.from_numpy(target), values)
        meters[run].add(counts.where_labelled(), rows=[0, *(1 + inputs["labels"].index(c) for c in classes)])
    class_iou = np.stack([meter.class_iou()[1:].numpy() for meter in meters])
    np.testing.assert_allclose(class_iou.mean(0), recorded["class_iou_mean"], atol=1e-6)
    np.testing.assert_allclose(class_iou.std(0), recorded["class_iou_std"], atol=1e-6)
    mean_iou = [meter.mean_iou() for meter in meters]
    np.testing.assert_allclose(mean_iou, recorded["per_run_mean_iou"], atol=1e-6)
    binary = [meter.foreground_background_iou() for meter in meters]
    np.testing.assert_allclose(binary, recorded["per_run_binary_mean_iou"], atol=1e-6)
    foreground = [(float(meter.class_iou()[0]), meter.pooled_iou()) for meter in meters]
    np.testing.assert_allclose(np.mean(foreground, 0), recorded["binary_class_iou_mean"], atol=1e-6)


def test_boxes() -> None:
    from fewseg.dataset.weak.annotations import largest_box

    reader()
    import reference_inputs

    recorded = np.load(SHARED / "parity" / "panet" / "bbox" / "bbox.npz")
    for item in range(4):
        mask = (reference_inputs.mask(300 + item, 1, 97, 97, None)[0] == 1).astype(np.uint8)
        instances = reference_inputs.labels(350 + item, 1, 97, 97, 5, None)[0]
        label = largest_box(mask, instances)
        np.testing.assert_array_equal(label == 1, recorded["fg_bbox"][item] == 1)
        np.testing.assert_array_equal(label == 0, recorded["bg_bbox"][item] == 1)
