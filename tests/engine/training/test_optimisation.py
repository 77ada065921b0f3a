"""Optimizers and learning rates over a training, against their formulas."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fewseg.engine.training.optimisation import PolySchedule, create_optimizer, restore_optimizer
from fewseg.model.contract import GroupRule


def test_rate_drops_to_a_tenth_after_every_milestone():
    schedule = PolySchedule(1e-3, 6000, power=0, index_split=99, milestones=(0.333333, 0.666667))
    rates = [schedule.rates(step, 1)[0] for step in (1, 2000, 2001, 4000, 4001, 6000)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_drops_join_the_decay():
    plain, dropping = PolySchedule(0.1, 10), PolySchedule(0.1, 10, milestones=(0.5,))
    assert dropping.rates(5, 2) == plain.rates(5, 2)
    assert dropping.rates(6, 2) == pytest.approx([rate / 10 for rate in plain.rates(6, 2)])


@pytest.mark.parametrize("power", [0.9, 2.0])
@pytest.mark.parametrize("warmup", [0, 4])
def test_rates_follow_the_formula_at_every_step(power: float, warmup: int) -> None:
    schedule = PolySchedule(0.5, 12, power, index_split=1, warmup_steps=warmup)
    for step in range(1, 13):
        share = 0.1 + 0.9 * step / warmup if step < warmup else math.pow((12 - step) / 12, power)
        rate = 0.5 * share
        assert schedule.rates(step, 4) == pytest.approx([rate, rate, 10 * rate, 10 * rate])


def test_the_published_schedule_is_the_default() -> None:
    rates = PolySchedule(0.1, 10).rates(5, 2)
    assert rates == pytest.approx([10 * 0.1 * math.sqrt(0.5) ** 1.8] * 2)
    assert PolySchedule(0.1, 10).rates(1, 1) == pytest.approx([0.9**0.9])
    assert PolySchedule(0.1, 10, index_split=0).rates(10, 2) == [0, 0]


def test_rates_are_set_group_by_group_with_their_own_factors() -> None:
    rules = {"slow": GroupRule(rate=0.25)}
    optimizer = create_optimizer(
        {name: weights(1.0) for name in ("plain", "slow", "head")}, lr=1.0, rules=rules
    )
    del optimizer.param_groups[2]["rate"]  # as in states that know no rates
    set_to = PolySchedule(0.2, 10, power=1, index_split=1).apply(optimizer, 5)
    assert set_to == pytest.approx([0.1, 0.025, 1.0])
    assert [group["lr"] for group in optimizer.param_groups] == set_to


def weights(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(values, dtype=torch.float64))]


def stepped(optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    """Step on gradients that are 1, 2, ... times the parameters' numbers, from 1."""
    groups = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step in range(1, steps + 1):
        for number, parameter in enumerate(groups, 1):
            parameter.grad = torch.full_like(parameter, float(step * number))
        optimizer.step()


def test_sgd_learns_by_its_formula_group_by_group() -> None:
    rules = {"exempt": GroupRule(decay=False)}
    groups = {"plain": weights(2.0), "exempt": weights(2.0)}
    stepped(create_optimizer(groups, lr=0.1, rules=rules), 3)
    for number, (parameters, decay) in enumerate(zip(groups.values(), (1e-4, 0.0), strict=True), 1):
        value, velocity = 2.0, 0.0
        for step in (1, 2, 3):
            velocity = 0.9 * velocity + step * number + decay * value
            value -= 0.1 * velocity
        assert parameters[0].item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adams_first_step_tells_how_they_decay(name: str) -> None:
    groups = {"plain": weights(3.0), "exempt": weights(3.0)}
    rules = {"exempt": GroupRule(decay=False)}
    optimizer = create_optimizer(groups, name, lr=0.1, weight_decay=0.5, rules=rules)
    stepped(optimizer)
    # Adam's first step is as long as the rate, whatever the gradient; AdamW shrinks the weight besides.
    decayed = 3.0 * (1 - 0.1 * 0.5) if name == "adamw" else 3.0
    found = [parameters[0].item() for parameters in groups.values()]
    assert found == pytest.approx([decayed - 0.1, 2.9], abs=1e-6)
    assert [group["name"] for group in optimizer.param_groups] == ["plain", "exempt"]
    with pytest.raises(KeyError):
        create_optimizer({"all": weights(1.0)}, "lion", lr=0.1)


def test_settings_reach_the_optimizer() -> None:
    optimizer = create_optimizer({"all": weights(1.0)}, "sgd", lr=0.3, momentum=0.5, weight_decay=0.2)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.5, 0.2)


def test_every_groups_gradient_is_shortened_by_itself() -> None:
    groups = {"long": weights(0.0, 0.0), "short": weights(0.0)}
    optimizer = create_optimizer(groups, lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=2.0)
    groups["long"][0].grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    groups["short"][0].grad = torch.tensor([1.5], dtype=torch.float64)
    optimizer.step()
    assert groups["long"][0].tolist() == pytest.approx([-1.2, -1.6], rel=1e-5)
    assert groups["short"][0].tolist() == [-1.5]


def pair(name: str, **settings: float) -> torch.optim.Optimizer:
    groups = {"first": [*weights(1.0, 2.0), *weights(3.0)], "second": weights(4.0, 5.0, 6.0)}
    return create_optimizer(groups, name, **{"lr": 0.1, **settings})


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_restored_moments_go_on_as_if_never_stopped(name: str) -> None:
    whole = pair(name)
    stepped(whole, 3)
    state = copy.deepcopy(whole.state_dict())
    resumed = pair(name, lr=0.2, weight_decay=0.3)
    restore_optimizer(resumed, state)
    assert [(group["lr"], group["weight_decay"]) for group in resumed.param_groups] == [(0.2, 0.3)] * 2
    assert [group["name"] for group in resumed.param_groups] == ["first", "second"]
    with torch.no_grad():
        for ours, theirs in zip(parameters_of(resumed), parameters_of(whole), strict=True):
            ours.copy_(theirs)
    for group in resumed.param_groups:
        group.update(lr=0.1, weight_decay=whole.param_groups[0]["weight_decay"])
    stepped(whole)
    stepped(resumed)
    for ours, theirs in zip(parameters_of(resumed), parameters_of(whole), strict=True):
        assert torch.equal(ours, theirs)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def test_parameters_without_moments_are_restored_without() -> None:
    never_stepped = pair("adam").state_dict()
    restore_optimizer(pair("adam"), never_stepped)
    for moments in ({}, {"momentum_buffer": None}):
        optimizer = pair("sgd")
        restore_optimizer(optimizer, {**pair("sgd").state_dict(), "state": {2: moments}})
        assert optimizer.state_dict()["state"].get(2, {}) == moments


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state["param_groups"][1].pop("betas"), "the optimizer was another"),
        (lambda state: state["param_groups"][1].update(name="other"), "of other parameters"),
        (lambda state: state["param_groups"][1].update(params=[2, 3]), "of other parameters"),
        (lambda state: state["param_groups"].pop(), "of other parameters"),
        (
            lambda state: state["state"].update({3: state["state"][0]}),
            "moments of parameters that are not in",
        ),
        (
            lambda state: state["state"][1].pop("step"),
            r"parameter 1 are not \['exp_avg', 'exp_avg_sq', 'step'\]",
        ),
        (lambda state: state["state"][1].update(more=0), "moments of parameter 1 are not"),
        (
            lambda state: state["state"][1].update(step=torch.zeros(1)),
            "optimizer's step of parameter 1 has another shape",
        ),
        (
            lambda state: state["state"][1].update(exp_avg=torch.zeros(2)),
            "optimizer's exp_avg of parameter 1 has another shape",
        ),
        (
            lambda state: state["state"][0].update(exp_avg_sq=torch.tensor([1.0, math.nan])),
            "optimizer's exp_avg_sq of parameter 0 is NaN or infinite",
        ),
    ],
)
def test_moments_of_another_optimizer_are_refused(damage: Callable[[dict], object], message: str) -> None:
    whole = pair("adam")
    stepped(whole)
    state = copy.deepcopy(whole.state_dict())
    damage(state)
    with pytest.raises(ValueError, match=message):
        restore_optimizer(pair("adam"), state)


def test_moments_of_sgd_are_not_adams_nor_the_other_way_round() -> None:
    for ours, theirs in (("sgd", "adam"), ("adamw", "sgd")):
        with pytest.raises(ValueError, match="the optimizer was another; resume with that one"):
            restore_optimizer(pair(ours), pair(theirs).state_dict())
    stepped(once := pair("sgd"))
    state = once.state_dict()
    state["state"][0] = {"exp_avg": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"moments of parameter 0 are not \['momentum_buffer'\]"):
        restore_optimizer(pair("sgd"), state)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3), "optimizer's momentum_buffer of parameter 0 has another shape"),
        (torch.tensor([1.0, math.inf]), "optimizer's momentum_buffer of parameter 0 is NaN or infinite"),
    ],
)
def test_momentum_that_does_not_fit_is_refused(value: torch.Tensor, message: str) -> None:
    """Of an optimizer with a single group."""
    once = create_optimizer({"all": weights(1.0, 2.0)}, lr=0.1)
    stepped(once)
    state = copy.deepcopy(once.state_dict())
    restore_optimizer(create_optimizer({"all": weights(1.0, 2.0)}, lr=0.1), state)
    state["state"][0]["momentum_buffer"] = value
    with pytest.raises(ValueError, match=message):
        restore_optimizer(create_optimizer({"all": weights(1.0, 2.0)}, lr=0.1), state)
