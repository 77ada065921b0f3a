"""OSLSM against the recorded runs, which followed the published network layer by layer.

The network has 272 million weights, which take ten seconds to draw and 4 GiB to train with, so all tests
share one. Geometry, hash and names are tested without weights in ``tests/model/test_oslsm.py``.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.checkpoint.published import published_names
from fewseg.model.contract import Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from tests.parity import inputs
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close, assert_gradients, fill, without_dropout

VARIANT = "oslsm/vgg16"
ABSOLUTE = 2e-3
"""Logits spread by some hundred."""


def episode_of(case: object) -> Episode:
    """Build the recorded inputs: K supports of 224 px and an oblong query."""
    built = {name: torch.from_numpy(inputs.make(spec)) for name, spec in case.meta["inputs"].items()}
    return Episode(
        built["query_images"],
        built["support_images"][None, None],
        built["support_masks"][None, None],
        torch.zeros(1, 1, dtype=torch.int64),
        query_mask=built["query_masks"],
    )


@pytest.fixture(scope="module")
def model() -> FewShotModel:
    """Return the network under the recorded weights, which all cases share."""
    variant, case = load_case(VARIANT, "oneshot_eval")
    model = create_model("oslsm", backbone="vgg16")
    fill(model, variant, case)
    return without_dropout(model)


def subsampled(tensor: Tensor, case: object, name: str) -> Tensor:
    """Take the elements of ``tensor`` that were recorded as ``name``: every so many channels and cells."""
    steps = case.meta["subsampling"].get(name, "[:]").strip("[]").split(", ")
    return tensor[tuple(slice(None, None, int(step.strip(":") or 1)) for step in steps)]


def run(model: FewShotModel, case: object) -> tuple[Episode, Prediction, dict[str, Tensor]]:
    """Run a case; watch the features on the way."""
    meta, episode, seen = model.meta, episode_of(case), {}
    hooks = [
        meta.condition.register_forward_hook(lambda _, given, out: seen.update(x_fc8=out)),
        meta.cells.register_forward_hook(
            lambda _, given, out: seen.update(pool5_query=given[0], query_fc7=out)
        ),
    ]
    prediction = model(episode)
    for hook in hooks:
        hook.remove()
    size = tuple(episode.query.shape[-2:])
    return (
        episode,
        prediction,
        {
            **seen,
            "w": prediction.parts["weight"][0],
            "b": prediction.parts["bias"][0],
            "cell_logits": prediction.parts["cell_logits"][0].unsqueeze(1),
            "logits_per_shot": meta.shot_logits(prediction, size)[0].unsqueeze(1),
            "logits": prediction.logits[:, 1:] - prediction.logits[:, :1],
        },
    )


def test_hash_is_the_recorded_one(model: FewShotModel) -> None:
    """The default seed and our draw give what the recording drew with NumPy."""
    drawn = np.random.RandomState(zlib.crc32(b"oslsm.hash.21"))
    kappa = drawn.randint(0, 1000, 4097)
    zeta = 2 * drawn.randint(0, 2, 4097) - 1
    own = model.meta.hash
    assert np.array_equal(own.kappa.numpy(), kappa)
    assert np.array_equal(own.zeta.numpy(), zeta)


@pytest.mark.parametrize("name", ["oneshot_eval", "fiveshot_eval"])
def test_outputs_and_intermediates(model: FewShotModel, name: str) -> None:
    _, case = load_case(VARIANT, name)
    model.eval()
    with torch.no_grad():
        _, _, found = run(model, case)
    for recorded, array in case.arrays.items():
        assert_close(subsampled(found[recorded], case, recorded), array, absolute=ABSOLUTE)
    assert 0.1 < (found["logits"] > 0).float().mean() < 0.9


def test_loss_and_gradients(model: FewShotModel) -> None:
    _, case = load_case(VARIANT, "oneshot_train")
    episode, prediction, found = run(model.train(), case)
    for recorded, array in case.arrays.items():
        assert_close(subsampled(found[recorded], case, recorded), array, absolute=ABSOLUTE)
    loss = model.losses(prediction, episode)["main"]
    recorded = case.meta["train"]
    assert loss.item() == pytest.approx(recorded["loss_sum"], rel=1e-5)
    assert loss.item() / episode.query_mask.numel() == pytest.approx(
        recorded["loss_mean_per_pixel"], rel=1e-5
    )
    loss.backward()
    assert len(recorded["grads"]) == 62
    assert_gradients(model, recorded["grads"])
    model.zero_grad()


def test_groups_learn_at_the_published_rates(model: FewShotModel) -> None:
    """Caffe's multipliers of rate and decay, layer by layer."""
    variant, _ = load_case(VARIANT, "oneshot_eval")
    names = published_names(model)
    group_of = {id(p): name for name, group in model.param_groups().items() for p in group}
    multipliers = variant.manifest["config"]["lr_decay_multipliers"]
    for name, parameter in model.named_parameters():
        layer, leaf = names[name].split(".")
        rate, decay = multipliers[layer][0 if leaf == "weight" else 1]
        rule = model.meta.learning.group_rules.get(group_of[id(parameter)])
        assert (rule.rate if rule else 1.0, rule.decay if rule else True) == (rate, bool(decay)), name
