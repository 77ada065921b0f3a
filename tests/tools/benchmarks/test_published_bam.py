"""The plain rendering of published BAM computes what our network does, in testing and in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewseg.model import create_model
from fewseg.model.fewshot import FewShotModel
from fewseg.util.metrics import count_logits
from tools.benchmarks.published_bam import published_counts, published_losses, published_outputs
from tools.benchmarks.step import published_step
from tools.episode_parts import flops_of
from tools.timing import draw_episode

SMALL = {"backbone": "resnet18", "image_size": 65, "backbone_options": {"width": 8}, "channels": 16}


def without_dropout(model: FewShotModel) -> FewShotModel:
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return model


@pytest.mark.parametrize("shot", [1, 3])
def test_logits_are_the_same(shot: int) -> None:
    model = create_model("bam", shot=shot, **SMALL).eval()
    episode = draw_episode(65, shot, batch=2)
    with torch.inference_mode():
        ours, theirs = model(episode), published_outputs(model, episode)
    for one, other in zip((ours.logits, ours.parts["meta"], ours.parts["base"]), theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


def test_losses_and_gradients_of_a_step_are_the_same() -> None:
    model = without_dropout(create_model("bam", **SMALL).train())
    episode = draw_episode(65, 1, batch=2)
    ours = model.losses(model(episode), episode)
    theirs = published_losses(published_outputs(model, episode), episode)
    torch.testing.assert_close(
        [ours[name] for name in ("main", "meta", "base")], theirs, atol=1e-5, rtol=1e-5
    )
    weight = model.get_parameter("meta.merge.0.weight")
    wanted = torch.autograd.grad(sum(ours.values()), weight)
    found = torch.autograd.grad(sum(theirs), weight)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_step_of_the_published_loop_learns() -> None:
    model = without_dropout(create_model("bam", **SMALL).train())
    episode = draw_episode(65, 1, batch=2)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    first = published_step(model, episode, optimizer, torch.autocast("cpu", enabled=False))
    second = published_step(model, episode, optimizer, torch.autocast("cpu", enabled=False))
    assert len(first) == 3 and sum(second) < sum(first)


def test_published_counts_are_intersections_and_unions() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 2, 9, 9), torch.randint(0, 2, (2, 30, 20))
    label[:, :3] = 255
    wanted = count_logits(logits, label)
    assert published_counts(logits, label) == [*wanted.intersection.tolist(), *wanted.union.tolist()]


def test_published_loop_needs_more_products() -> None:
    """It compares masked-out positions too, and convolves the whole pyramid of the base learner."""
    model = create_model("bam", **SMALL).eval()
    episode = draw_episode(65, 1)
    with torch.inference_mode():
        theirs, _ = flops_of(lambda: published_outputs(model, episode))
        ours, _ = flops_of(lambda: model(episode))
    assert theirs > ours
