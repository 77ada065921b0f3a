"""The project's own training step against recorded steps of the published training of both stages."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fewseg.engine.training.optimisation import PolySchedule, create_optimizer
from fewseg.engine.training.step import training_step
from fewseg.model import create_base_learner, create_model
from fewseg.model.checkpoint.published import load_published
from tests.parity import inputs
from tests.parity.cases import load_case, make_episode
from tests.parity.comparison import assert_close, assert_statistics, episode_from, fill, without_dropout
from tests.parity.rounding import amplified, precise, prepare


def encoder_weights(variant: object) -> dict[str, torch.Tensor]:
    """Return the stage-1 recording's weights, whose backbone was drawn under its second name, ``encoder``."""
    shapes = variant.manifest["state_dict"]
    drawn = {name: inputs.fill_parameter(name, tuple(shape)) for name, shape in shapes.items()}
    return {name: torch.from_numpy(np.asarray(values)) for name, values in drawn.items()}


def run_steps(
    model: nn.Module, batches: list, case: object, index_split: int
) -> tuple[list[dict[str, float]], list]:
    """Train on ``batches`` as the recording says; return the losses and the rates of every step."""
    recorded = case.meta["schedule"]
    schedule = PolySchedule(recorded["base_lr"], recorded["max_iter"], recorded["power"], index_split)
    optimizer = create_optimizer(model.param_groups(), lr=recorded["base_lr"])
    losses, rates = [], []
    for step, batch in enumerate(batches, 1):
        rates.append(schedule.apply(optimizer, step))
        losses.append(training_step(model, batch, optimizer))
    return losses, rates


def test_stage_two_steps_equal_the_published_training():
    variant, case = load_case("bam/resnet50", "train_steps")
    model = create_model("bam", backbone="resnet50", image_size=97)
    fill(model, variant, case)
    without_dropout(model).train()
    episodes = [episode_from(make_episode(spec)) for spec in case.meta["steps"]]
    losses, rates = run_steps(model, episodes, case, index_split=-1)

    assert rates == [pytest.approx([rate] * 9) for rate in case.meta["schedule"]["lr_of_every_group"]]
    order = case.meta["train_steps"]["order"]
    for ours, recorded in zip(losses, case.meta["train_steps"]["losses"], strict=True):
        assert_close([ours[name] for name in order], recorded, 0, 1e-4)
    assert_statistics(model, case.meta["train_steps"]["weights"], relative=1e-5)


@amplified
def test_stage_one_steps_equal_the_published_training():
    variant, case = load_case("pspnet/resnet50", "train_steps")
    model = create_base_learner("pspnet", backbone="resnet50", classes=16)
    load_published(model, encoder_weights(variant))
    prepare(model)
    without_dropout(model).train()
    batches = []
    for spec in case.meta["steps"]:
        image, label = (precise(np.ascontiguousarray(inputs.make(spec[key]))) for key in ("image", "label"))
        batches.append(SimpleNamespace(image=image, label=label))
    losses, rates = run_steps(model, batches, case, index_split=0)

    assert rates == [pytest.approx(recorded) for recorded in case.meta["schedule"]["lr_per_group"]]
    for ours, recorded in zip(losses, case.meta["train_steps"]["losses"], strict=True):
        assert_close(ours["main"], recorded, 0, 1e-3)
    assert_statistics(model, case.meta["train_steps"]["weights"], relative=1e-4)
