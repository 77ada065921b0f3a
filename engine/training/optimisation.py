"""The optimizer and the learning rates of its parameter groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from fewseg.model.contract import GroupRule

HEAD_FACTOR = 10.0
"""Factor of the learning rate of groups after ``index_split``."""

_WARMUP_START = 0.1

_MOMENTS = {"betas": {"step", "exp_avg", "exp_avg_sq"}, "momentum": {"momentum_buffer"}}
"""The moments of an optimizer per parameter, by the option that only its kind of optimizer has."""


def create_optimizer(
    groups: Mapping[str, Sequence[nn.Parameter]],
    name: str = "sgd",
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    rules: Mapping[str, GroupRule] | None = None,
    clip_norm: float | None = None,
) -> Optimizer:
    """Create the optimizer, with one parameter group per entry of ``groups``, in this order.

    Its updates are fused, and the device skips them where ``found_inf`` of the optimizer is 1: then no step
    changes a weight or a moment, so the host need not look at the loss before every step.

    Args:
        groups: name of a group -> its trainable parameters, as ``model.param_groups()`` returns them.
        name: ``sgd``, ``adamw`` or ``adam``.
        lr: learning rate of every group, until a schedule sets it.
        momentum: momentum of SGD.
        weight_decay: weight decay of every parameter that no rule exempts.
        rules: exceptions for single groups.
        clip_norm: every group's gradient is clipped to this norm before a step.
    """
    listed = []
    for group, parameters in groups.items():
        rule = (rules or {}).get(group, GroupRule())
        own = {"params": list(parameters), "name": group, "rate": rule.rate}
        listed.append(own if rule.decay else {**own, "weight_decay": 0.0})
    optimizer: Optimizer
    if name == "sgd":
        optimizer = torch.optim.SGD(listed, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
        optimizer.register_step_pre_hook(lambda stepping, *_: _begin_momentum(stepping))
    else:
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[name]
        optimizer = kind(listed, lr=lr, weight_decay=weight_decay, fused=True)
    devices = (parameter.device for group in groups.values() for parameter in group)
    optimizer.found_inf = torch.zeros((), device=next(devices, None))  # type: ignore[attr-defined]
    if clip_norm is not None:
        optimizer.register_step_pre_hook(lambda stepping, *_: _clip(stepping, clip_norm))
    return optimizer


def _begin_momentum(optimizer: Optimizer) -> None:
    """Give every parameter that has its first gradient a momentum of zero.

    The fused SGD cannot begin the momentum of some parameters beside others that have one, and a step that it
    skips would leave that of the first step undefined.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if parameter.grad is not None and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def _clip(optimizer: Optimizer, norm: float) -> None:
    for group in optimizer.param_groups:
        clip_grad_norm_(group["params"], norm)


def restore_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the moments of an earlier ``optimizer.state_dict()``; rates, decay and the like do not change.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the state is that of another optimizer.
    """
    own, theirs = optimizer.param_groups, state["param_groups"]
    kind = next(key for key in _MOMENTS if key in own[0])
    if any(kind not in group for group in theirs):
        raise ValueError("the optimizer was another; resume with that one, see Train.optimizer")
    if [(g["name"], len(g["params"])) for g in own] != [(g["name"], len(g["params"])) for g in theirs]:
        raise ValueError("the optimizer was one of other parameters; resume with the same method and options")
    numbers = [number for group in theirs for number in group["params"]]
    parameters = [parameter for group in own for parameter in group["params"]]
    shapes = {number: value.shape for number, value in zip(numbers, parameters, strict=True)}
    if not state["state"].keys() <= shapes.keys():
        raise ValueError("the optimizer has moments of parameters that are not in its groups")
    for number, moments in state["state"].items():
        if moments.keys() not in (set(), _MOMENTS[kind]):
            raise ValueError(
                f"the optimizer's moments of parameter {number} are not {sorted(_MOMENTS[kind])}"
            )
        for name, value in moments.items():
            if name == "momentum_buffer" and value is None:
                continue
            if value.shape != (torch.Size() if name == "step" else shapes[number]):
                raise ValueError(f"the optimizer's {name} of parameter {number} has another shape than that")
            if not torch.isfinite(value).all():
                raise ValueError(f"the optimizer's {name} of parameter {number} is NaN or infinite")
    # The options decide where and how moments are kept, so they must be there before these are loaded.
    options = [{**group, "params": saved["params"]} for group, saved in zip(own, theirs, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": options})
    for parameter, moments in optimizer.state.items():  # fused updates take all in the order in memory
        moments |= {
            name: torch.empty_like(parameter).copy_(value)
            for name, value in moments.items()
            if value is not None and value.shape == parameter.shape != torch.Size()
        }


@dataclass(frozen=True)
class PolySchedule:
    """The polynomial schedule ``base_lr * (1 - step / steps) ** power``, whose last step has rate 0.

    Attributes:
        base_lr: learning rate of the groups up to ``index_split``.
        steps: number of steps of the training.
        power: exponent of the decay.
        index_split: index of the last group without the tenfold rate; with -1 all groups have it.
        warmup_steps: number of steps in which the rate rises linearly from a tenth of ``base_lr``.
        milestones: shares of the training after each of which the rate drops to a tenth.
    """

    base_lr: float
    steps: int
    power: float = 0.9
    index_split: int = -1
    warmup_steps: int = 0
    milestones: tuple[float, ...] = ()

    def rates(self, step: int, groups: int) -> list[float]:
        """Return the learning rate of every group at ``step``, counted from 1."""
        if step < self.warmup_steps:
            rate = self.base_lr * (_WARMUP_START + (1 - _WARMUP_START) * step / self.warmup_steps)
        else:
            rate = self.base_lr * (1 - step / self.steps) ** self.power
        rate *= 0.1 ** sum(step > round(share * self.steps) for share in self.milestones)
        return [rate if index <= self.index_split else rate * HEAD_FACTOR for index in range(groups)]

    def apply(self, optimizer: Optimizer, step: int) -> list[float]:
        """Set the rates of ``optimizer`` for ``step``, counted from 1, and return them."""
        rates = self.rates(step, len(optimizer.param_groups))
        rates = [
            rate * group.get("rate", 1.0) for rate, group in zip(rates, optimizer.param_groups, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return rates
