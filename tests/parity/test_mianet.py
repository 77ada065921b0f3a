"""MIANet against the recorded runs of the published implementation."""

import functools

import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.contract import Prediction
from fewseg.model.fewshot import FewShotModel
from tests.parity.cases import load_case, word_vectors
from tests.parity.comparison import (
    agreement,
    assert_close,
    assert_gradients,
    assert_statistics,
    episode_of,
    fill,
    without_dropout,
)
from tests.parity.rounding import amplified

EVALUATIONS = [
    ("mianet/resnet50", "eval_1shot"),
    ("mianet/resnet50", "eval_1shot_473"),
    ("mianet/resnet50_coco", "eval_1shot"),
    ("mianet/vgg16", "eval_1shot"),
    ("mianet/vgg16", "eval_1shot_473"),
]
TRAININGS = [
    (variant, case)
    for variant in ("mianet/resnet50", "mianet/vgg16")
    for case in ("train_1shot", "train_1shot_bneval")
]
PRIOR_TOLERANCE = (2e-4, 2e-4, 2e-3, 2e-3)
"""Mean cosines vary little over an image, and every level stretches the rounding of the one before."""


def build(variant_name: str, case_name: str, **options: object) -> tuple[FewShotModel, object]:
    variant, case = load_case(variant_name, case_name)
    model = create_model(
        "mianet",
        backbone=variant_name.partition("/")[2].partition("_")[0],
        image_size=case.episode()["query"].shape[-1],
        embeddings=torch.from_numpy(word_vectors(case.meta["embeddings"])),
        ppm_scales=case.meta["ppm_scales"],
        **options,
    )
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(variant_name: str, case_name: str) -> tuple[FewShotModel, Prediction, object]:
    """Run a case once; several tests only look at what came out."""
    model, case = build(variant_name, case_name)
    with torch.no_grad():
        prediction = model.eval()(episode_of(case))
    return model, prediction, case


def assert_general_information(model: FewShotModel, prototype: Tensor, case: object) -> None:
    """Compare the general prototypes of all classes, made from the supports' prototypes [B,C]."""
    table = model.meta.embeddings
    words = table.expand(len(prototype), *table.shape)
    pairs = torch.cat([words, prototype[:, None].expand(-1, len(table), -1)], 2)
    assert_close(model.meta.generator(pairs)[:, :, ::8], case.arrays["gig_all_classes"])


@pytest.mark.parametrize(("variant", "name"), EVALUATIONS)
def test_outputs(variant: str, name: str) -> None:
    _, prediction, case = evaluated(variant, name)
    arrays = case.arrays
    stride = case.meta["final"]["stride"]
    assert_close(
        prediction.logits[:, :, ::stride, ::stride], arrays[case.meta["final"]["array"]], absolute=5e-4
    )
    assert_close(prediction.parts["prototype"], arrays["general_prototype"])
    for level, absolute in enumerate(PRIOR_TOLERANCE):
        assert_close(prediction.parts[f"prior{level}"], arrays[f"prior_{level}"], absolute=absolute)
        assert_close(prediction.parts[f"inner{level}"], arrays[f"inner_logits_{level}"], absolute=5e-4)


@pytest.mark.parametrize(("variant", "name"), EVALUATIONS)
def test_intermediates(variant: str, name: str) -> None:
    model, _, case = evaluated(variant, name)
    arrays, episode = case.arrays, episode_of(case)
    with torch.no_grad():
        features = model.query_features(episode.query)
        query = model.encode_query_features(features)
        support_features = model.support_features(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        support = model.encode_support_features(support_features, episode.support_mask[:, 0, 0])
        feature = model.meta.encode_query(support_features)["feature"]
        local = model.meta.local_features(feature)
    assert_general_information(model, support["prototype"], case)
    compared = {
        **{f"query_{stage}": features[stage] for stage in ("layer2", "layer3", "layer4")},
        "support_layer4": support_features["layer4"],
        "query_feat": query["feature"],
        "support_feat": feature,
        "local_features": local,
    }
    for key, tensor in compared.items():
        assert_close(thinned(tensor, arrays[key].shape), arrays[key])


def thinned(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Take of [B,C,h,w] what was recorded: every so many channels and positions."""
    channels = tensor.shape[1] // shape[1]
    stride = -(-tensor.shape[-1] // shape[-1])
    return tensor[:, ::channels, ::stride, ::stride]


@pytest.mark.parametrize(("variant", "name"), TRAININGS)
@amplified
def test_losses_gradients_and_statistics(variant: str, name: str) -> None:
    batch_statistics = not name.endswith("bneval")
    model, case = build(variant, name, fix_bn=not batch_statistics)
    without_dropout(model).train()
    episode, recorded = episode_of(case), case.meta["train"]
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    sum(losses.values()).backward()
    for ours, theirs in (("main", "main"), ("inner", "aux"), ("triplet", "triplet")):
        assert_close(losses[ours], recorded[theirs], 0, 1e-4)
    inside = prediction.parts["local_object"].flatten(1)
    assert inside.sum(1).tolist() == recorded["triplet_positives_per_item"]
    assert (~inside).sum(1).tolist() == recorded["triplet_negatives_per_item"]
    for level, absolute in enumerate(PRIOR_TOLERANCE):
        assert_close(prediction.parts[f"prior{level}"], case.arrays[f"prior_{level}"], absolute=absolute)
    local = prediction.parts["local_feature"][:, 0].transpose(1, 2)
    assert_close(local[:, ::16], case.arrays["local_features"])
    assert agreement(prediction.logits.argmax(1), case.arrays["pred"]) > 0.999
    assert_gradients(model, recorded["grads"])
    assert len(recorded["grads"]) == sum(len(group) for group in model.param_groups().values())
    if batch_statistics:
        assert_statistics(model, recorded["running_stats_after_step"])
        counted = {int(v) for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
        assert counted == {recorded["num_batches_tracked_after_step"]}


def test_parameters_and_their_groups() -> None:
    model = create_model("mianet", backbone="resnet50", embeddings=torch.zeros(21, 300))
    assert sum(p.numel() for g in model.param_groups().values() for p in g) == 12_297_610
    assert list(model.param_groups()) == [
        "reduction",
        "local_features",
        "generator",
        "merge",
        "link",
        "enrich",
        "inner",
        "fuse",
        "refine",
        "classify",
    ]
