"""PMMs and RPMMs against the recorded runs of the published implementation."""

import functools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import relu

from fewseg.model import create_model
from fewseg.model.contract import Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.mixture import PrototypeMixture, mixture_posterior, object_posterior
from tests.parity import inputs
from tests.parity.cases import Case, load_case
from tests.parity.comparison import (
    assert_close,
    assert_gradients,
    assert_statistics,
    episode_of,
    fill,
    without_dropout,
)
from tests.parity.rounding import amplified

METHODS = {"resnet50": "pmm", "vgg16": "pmm", "rpmm_resnet50": "rpmm"}
EVALUATIONS = [
    *(("resnet50", name) for name in ("eval_1shot", "eval_1shot_even", "eval_5shot")),
    *(("vgg16", name) for name in ("eval_1shot", "eval_5shot")),
    *(("rpmm_resnet50", name) for name in ("eval_1shot", "eval_5shot")),
]
SINGLE = [(variant, name) for variant, name in EVALUATIONS if name != "eval_5shot"]
OUTPUT, PROTOTYPE = 1e-4, 1e-5


def build(variant_name: str, name: str, **options: object) -> tuple[FewShotModel, object]:
    variant, case = load_case(f"pmm/{variant_name}", name)
    backbone = variant_name.removeprefix("rpmm_")
    model = create_model(METHODS[variant_name], backbone=backbone, shot=case.shot, image_size=97, **options)
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(variant: str, name: str) -> tuple[FewShotModel, object, Episode, Prediction]:
    """Run once what several tests only look at."""
    model, case = build(variant, name)
    episode = episode_of(case)
    model.eval()
    with torch.no_grad():
        return model, case, episode, model(episode)


@pytest.mark.parametrize(("variant", "name"), EVALUATIONS)
def test_outputs(variant: str, name: str) -> None:
    model, case, _, prediction = evaluated(variant, name)
    stages = len(model.meta.components)
    for stage in range(stages):
        recorded = case.arrays.get(f"logits_stage{stage}", case.arrays.get("logits_lowres"))
        assert_close(prediction.parts[f"stage{stage}"], recorded, OUTPUT)
    assert_close(prediction.logits.softmax(1), case.arrays["prob"], OUTPUT)


@pytest.mark.parametrize(("variant", "name"), EVALUATIONS)
def test_prototypes_and_posteriors(variant: str, name: str) -> None:
    model, case, _, prediction = evaluated(variant, name)
    places = model.meta.places()
    for stage, count in enumerate(model.meta.components):
        for side, key in (("object", "fg"), ("background", "bg")):
            prototypes = prediction.parts[side][:, places[stage]]
            assert_close(prototypes, case.arrays[f"prototypes_{key}_k{count}"], PROTOTYPE)
        assert_close(prediction.parts[f"posterior{stage}"], case.arrays[f"prob_map_k{count}"], PROTOTYPE)


@pytest.mark.parametrize(("variant", "name"), SINGLE)
def test_features(variant: str, name: str) -> None:
    model, case, episode, _ = evaluated(variant, name)
    with torch.no_grad():
        query = model.encode_query(episode.query)["feature"]
        support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])["feature"]
    assert_close(query[:, ::16], case.arrays["query_features"], OUTPUT)
    assert_close(support[:, ::16], case.arrays["support_features"], OUTPUT)


def test_five_shots_of_rpmm_sum_their_stages() -> None:
    _, case, _, prediction = evaluated("rpmm_resnet50", "eval_5shot")
    stages = [prediction.parts[f"stage{stage}"].softmax(1) for stage in range(3)]
    assert_close(sum(stages) / 5, case.arrays["out_lowres"], OUTPUT)


@pytest.mark.parametrize("variant", METHODS)
@amplified
def test_losses_gradients_and_statistics(variant: str) -> None:
    model, case = build(variant, "train")
    without_dropout(model).train()
    episode = episode_of(case)
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    sum(losses.values()).backward()
    recorded = case.meta["train"]
    assert_close(sum(losses.values()), recorded["loss"], 0, 1e-5)
    for stage, name in enumerate(["stage0", "stage1", "main"] if variant.startswith("rpmm") else []):
        assert_close(losses[name], recorded[f"loss_stage{stage}"], 0, 1e-5)
    stages = len(model.meta.components)
    assert_close(prediction.parts[f"stage{stages - 1}"], case.arrays["logits_lowres"], OUTPUT)
    zero = set(recorded["grads_zero"])
    assert_gradients(model, {k: v for k, v in recorded["grads"].items() if k not in zero}, relative=5e-3)
    assert len(set(recorded["grads"]) | zero) == sum(len(g) for g in model.param_groups().values())
    running = {k: v for k, v in recorded["bn_after"].items() if "num_batches" not in k}
    assert_statistics(model, running)


def test_biases_before_a_normalisation_learn_nothing() -> None:
    model, case = build("resnet50", "train")
    without_dropout(model).train()
    episode = episode_of(case)
    model.losses(model(episode), episode)["main"].backward()
    largest = 1e-3 * model.meta.refine.classify.weight.grad.norm()
    assert float(model.meta.reduce[0].bias.grad.norm()) < largest


@functools.cache
def mixture_case() -> tuple[Case, Tensor, Tensor, Tensor]:
    """Return the recorded case of EM alone, and its support, query and soft mask."""
    support = relu(torch.from_numpy(inputs.image(40, 2, 13, 15, channels=256)))
    other = relu(torch.from_numpy(inputs.image(41, 2, 13, 15, channels=256)))
    inside = torch.from_numpy(inputs.mask(42, 2, 13, 15, None) == 1)[:, None]
    mask = torch.from_numpy(inputs.mask(43, 2, 97, 113, None)).float()[:, None]
    return load_case("pmm/em", "em")[1], support, 0.3 * torch.where(inside, support, other), mask


@pytest.mark.parametrize("components", [1, 3, 6])
def test_expectation_maximisation_alone(components: int) -> None:
    case, support, query, mask = mixture_case()
    arrays = case.arrays
    mask = torch.nn.functional.interpolate(mask, (13, 15), mode="bilinear", align_corners=True)
    mixture = PrototypeMixture(256, (components,))
    assert_close(mixture.start(0), arrays[f"mu0_k{components}"][0], 1e-7)
    (inside,), (outside,) = mixture(support * mask, support * (1 - mask))
    assert_close(inside, arrays[f"prototypes_fg_k{components}"], PROTOTYPE)
    assert_close(outside, arrays[f"prototypes_bg_k{components}"], PROTOTYPE)
    assert_close(mixture_posterior(query, inside, outside), arrays[f"components_k{components}"], PROTOTYPE)
    assert_close(object_posterior(query, inside, outside), arrays[f"prob_map_k{components}"], PROTOTYPE)


@pytest.mark.parametrize(
    ("method", "backbone", "count"),
    [("pmm", "resnet50", 19_629_890), ("rpmm", "resnet50", 19_632_962), ("pmm", "vgg16", 25_801_794)],
)
def test_parameter_counts(method: str, backbone: str, count: int) -> None:
    assert sum(p.numel() for p in create_model(method, backbone=backbone).parameters()) == count
