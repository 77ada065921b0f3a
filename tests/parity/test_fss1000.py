"""FSS-1000's relation network against the recorded runs of the published implementation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.checkpoint.published import published_names
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.encoding import group_encoding
from fewseg.model.fewshot import FewShotModel
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close, assert_gradients, assert_statistics, fill
from tests.parity.inputs import make
from tests.parity.rounding import amplified, precise

VARIANT = "fss1000/vgg16"
EVALUATIONS = [
    "oneshot_batchstats",
    "fiveshot_batchstats",
    "fiveshot_224_batchstats",
    "oneshot_eval",
    "fiveshot_eval",
]
TAPS = {f"query_tap{n + 1}": f"layer{n}.unpooled" for n in range(5)}


def inputs_of(case: object) -> dict[str, Tensor]:
    """Build the recorded inputs; K supports are shared by all queries."""
    return {name: precise(make(spec)) for name, spec in case.meta["inputs"].items()}


def run(model: FewShotModel, case: object) -> tuple[Encoding, Encoding, Prediction, dict[str, Tensor]]:
    """Encode supports, then queries, as published, and decode; watch what goes through the relation."""
    inputs = inputs_of(case)
    seen: dict[str, Tensor] = {}
    relation = model.meta.relation
    hooks = [
        relation.relate.register_forward_hook(
            lambda _, given, out: seen.update(relation_pairs=given[0], relation_layer2=out)
        ),
        relation.climb[2].register_forward_hook(lambda _, given, out: seen.update(decoder_block3=out)),
    ]
    support = model.encode_support(inputs["support_images"], inputs["support_masks"])
    query = model.encode_query(inputs["query_images"])
    queries = len(inputs["query_images"])
    grouped = {
        name: tensor.expand(queries, *tensor.shape[1:])
        for name, tensor in group_encoding(support, 1, 1, case.shot).items()
    }
    size = tuple(inputs["query_images"].shape[-2:])
    prediction = model.decode(query, grouped, size)
    for hook in hooks:
        hook.remove()
    return query, support, prediction, seen


def build(name: str, **options: object) -> tuple[FewShotModel, object]:
    variant, case = load_case(VARIANT, name)
    mode = "running" if case.meta["mode"] == "eval" else "batch"
    model = create_model("fss1000", backbone="vgg16", shot=case.shot, bn_mode=mode, **options)
    fill(model, variant, case)
    return model, case


def subsampled(tensor: Tensor, case: object, name: str) -> Tensor:
    """Take the elements of ``tensor`` that were recorded as ``name``: every so many channels and cells."""
    steps = case.meta["subsampling"][name].strip("[]").split(", ")
    return tensor[tuple(slice(None, None, int(step.strip(":") or 1)) for step in steps)]


def foreground_logit(prediction: Prediction) -> Tensor:
    return prediction.logits[:, 1:] - prediction.logits[:, :1]


@pytest.mark.parametrize("name", EVALUATIONS)
@amplified
def test_outputs_and_intermediates(name: str) -> None:
    model, case = build(name)
    with torch.no_grad():
        query, support, prediction, seen = run(model.eval(), case)
    logit, stride = foreground_logit(prediction), case.meta["final"]["stride"]
    assert_close(logit[..., ::stride, ::stride], case.arrays["logits"])
    assert_close(prediction.logits.softmax(1)[:, 1:, ::stride, ::stride], case.arrays["probability"])
    assert logit.std() > 0.3
    found = {
        "support_feature": support["feature"],
        "query_feature": query["high"],
        **{recorded: query[ours] for recorded, ours in TAPS.items()},
        **seen,
    }
    for recorded, tensor in found.items():
        assert_close(subsampled(tensor, case, recorded), case.arrays[recorded])


@pytest.mark.parametrize("loss", ["mse", "bce"])
@amplified
def test_losses_gradients_and_statistics(loss: str) -> None:
    model, case = build("fiveshot_train", loss=loss)
    inputs, recorded = inputs_of(case), case.meta["train"]
    *_, prediction, _ = run(model.train(), case)
    assert_statistics(model, recorded["running_statistics_after_forward"])
    queries = len(inputs["query_images"])
    episode = Episode(
        inputs["query_images"],
        inputs["support_images"].expand(queries, 1, -1, -1, -1, -1),
        inputs["support_masks"].expand(queries, 1, -1, -1, -1),
        torch.zeros(queries, 1, dtype=torch.int64),
        query_mask=inputs["query_masks"],
    )
    losses = model.losses(prediction, episode)
    assert_close(losses["main"], recorded[f"loss_{loss}"], 1e-5, 0)
    losses["main"].backward()
    gradients = recorded["grads" if loss == "mse" else "grads_bce"]
    vanishing = {name: value for name, value in gradients.items() if value[0] < 1e-5}
    assert len(vanishing) == 24  # the biases before a BatchNorm that subtracts the batch's mean
    assert_gradients(model, {name: value for name, value in gradients.items() if name not in vanishing})
    biases = {published: name for name, published in published_names(model).items() if published in vanishing}
    assert all(model.get_parameter(name).grad.norm() < 1e-5 for name in biases.values())
    if loss == "mse":
        norms = [torch.stack([p.grad.norm() for p in g]).norm() for g in model.param_groups().values()]
        assert_close(torch.stack(norms), list(recorded["grad_norm_before_clip"].values()), 0, 1e-3)


@pytest.mark.parametrize("name", ["oneshot_batchstats", "fiveshot_224_batchstats"])
def test_whole_episode_gives_the_same(name: str) -> None:
    """Repeating the supports for every query changes no statistic of theirs."""
    model, case = build(name)
    inputs = inputs_of(case)
    queries = len(inputs["query_images"])
    episode = Episode(
        inputs["query_images"],
        inputs["support_images"].expand(queries, 1, -1, -1, -1, -1),
        inputs["support_masks"].expand(queries, 1, -1, -1, -1),
        torch.zeros(queries, 1, dtype=torch.int64),
    )
    with torch.no_grad():
        *_, prediction, _ = run(model.eval(), case)
        whole = model(episode)
    torch.testing.assert_close(whole.logits, prediction.logits, atol=2e-5, rtol=1e-4)
