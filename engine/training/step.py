"""One optimisation step, the same for base learners and few-shot models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.optim import Optimizer

from fewseg.model.contract import Network
from fewseg.model.layer.loss import total
from fewseg.util.errors import UserError

Forward = Callable[[Any], Any]


class NotFiniteError(UserError):
    """The loss is NaN or infinite."""


def training_step(
    model: Network,
    batch: Any,
    optimizer: Optimizer,
    *,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
    precision: AbstractContextManager[None] | None = None,
) -> dict[str, float]:
    """Minimise the sum of the losses of ``batch`` by one step and return the losses by name.

    A model may ask for its losses to be minimised in turns: then one step for each, after a forward pass of
    its own, so that a turn sees what the one before has learnt.

    Args:
        model: names its losses, and those that are ``alternating``.
        batch: an episode, or labelled images; on the model's device.
        optimizer: its rates are set by the caller.
        forward: the model as it is to be run, if wrapped (distributed, compiled).
        generator: for losses that draw random pixels.
        precision: autocast to run the forward pass in.

    Raises:
        NotFiniteError: the loss is NaN or infinite; no weight has been changed by it.
    """
    forward = model if forward is None else forward  # a compiled one has no truth value
    values: dict[str, float] = {}
    for turn in model.alternating or (None,):
        with precision or nullcontext():
            losses = model.losses_on(batch, forward, generator)
            losses = losses if turn is None else {name: losses[name] for name in turn}
            loss = total(losses)
        found = torch.stack([value.detach() for value in losses.values()]).tolist()
        values |= zip(losses, found, strict=True)
        if not torch.isfinite(loss):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            raise NotFiniteError(f"the loss is not finite ({shown})")
        optimizer.zero_grad(set_to_none=True)  # what a turn does not reach keeps no gradient, and stays
        loss.backward()
        optimizer.step()
    return values
