"""Every method learns four episodes by heart.

Two pictures are queries twice, each with two classes, so a network that ignores its support cannot succeed.
Backbones are narrow and random; those that a method leaves frozen stay frozen.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fewseg.engine.evaluation.one_by_one import predict
from fewseg.engine.training.optimisation import PolySchedule, create_optimizer
from fewseg.engine.training.step import training_step
from fewseg.model import list_models
from fewseg.model.contract import Episode
from fewseg.model.fewshot import FewShotModel
from fewseg.util.metrics import IoUMeter, count_logits
from tests.model.small_models import EPISODES, RECIPES, four_episodes, part_of, small_model

WANTED = 0.9
STEPS, EVERY = 400, 20


@pytest.fixture(scope="module")
def episodes() -> Episode:
    return four_episodes()


def test_methods_are_complete() -> None:
    assert list(RECIPES) == list_models()


def test_episodes_need_their_support(episodes: Episode) -> None:
    """Every query has two targets, none of them tiny and no two alike."""
    first, second = episodes.query_mask[::2] == 1, episodes.query_mask[1::2] == 1
    assert torch.equal(episodes.query[::2], episodes.query[1::2])
    assert not (first & second).any()
    assert all(area.mean() > 0.15 for area in (first.float(), second.float()))


@pytest.mark.parametrize("method", list_models())
def test_learns_four_episodes_by_heart(method: str, episodes: Episode) -> None:
    scores = []
    for score in _training(method, episodes):
        scores.append(score)
        if score > WANTED:
            break
    assert max(scores) > WANTED, f"IoU every {EVERY} steps: {[round(100 * score) for score in scores]}"


def _training(method: str, episodes: Episode) -> Iterator[float]:
    """Train on the episodes and yield the IoU of the foreground from time to time."""
    recipe = RECIPES[method]
    model = small_model(method)
    if not model.trains_backbone:
        _fit_statistics(model, torch.cat([episodes.query, episodes.support.flatten(0, 2)]))
    optimizer = create_optimizer(
        model.param_groups(), "adamw", lr=recipe.base_lr, weight_decay=0, rules=model.group_rules
    )
    schedule = PolySchedule(recipe.base_lr, STEPS, index_split=99, warmup_steps=20)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, STEPS):
        schedule.apply(optimizer, step)
        batch = part_of(episodes, recipe.batch * step % len(EPISODES), recipe.batch)
        training_step(model.train(), batch, optimizer, generator=generator)
        if step % EVERY == 0:
            yield _iou(model.eval(), episodes)


def _fit_statistics(model: FewShotModel, images: Tensor) -> None:
    """Give the BatchNorms of a frozen, random backbone the statistics of the images, as training would."""
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = None  # the mean of all batches, that is of this one
    with torch.no_grad():
        model.query_features(images)


def _iou(model: FewShotModel, episodes: Episode) -> float:
    """Test one episode after the other, as a test does -> the pooled IoU of the foreground."""
    meter = IoUMeter(2)
    for number in range(len(EPISODES)):
        episode = part_of(episodes, number, 1)
        meter.add(count_logits(predict(model, episode).logits, episode.ground_truth))
    return meter.pooled_iou()
