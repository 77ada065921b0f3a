"""One optimisation step, the same for base learners and few-shot models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.optim import Optimizer

from fewseg.model.contract import Network
from fewseg.model.layer.loss import means_over_processes, total
from fewseg.util import distributed
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

    Several processes have a share of the batch each; they minimise and return the losses of the whole batch.

    If the model has alternating losses, each group of them is minimised by its own step with its own forward
    pass, which uses the weights after the step before.

    Args:
        model: the model, which returns its losses by name and says which are ``alternating``.
        batch: an episode, or labelled images, on the model's device.
        optimizer: the optimizer, whose learning rates the caller sets.
        forward: the wrapped model (distributed, compiled), if any.
        generator: random generator for losses that sample pixels.
        precision: autocast context of the forward pass.

    Raises:
        NotFiniteError: the loss is NaN or infinite; it has changed no weight.
    """
    forward = model if forward is None else forward  # a compiled module has no truth value
    average = distributed.all_mean if distributed.world_size() > 1 else None
    values: dict[str, float] = {}
    for turn in model.alternating or (None,):
        with precision or nullcontext(), means_over_processes(average):
            losses = model.losses_on(batch, forward, generator)
            losses = losses if turn is None else {name: losses[name] for name in turn}
            loss = total(losses)
        numbers = torch.stack([value.detach() for value in losses.values()])
        values |= zip(losses, numbers.tolist(), strict=True)
        if not torch.isfinite(loss):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            raise NotFiniteError(f"the loss is not finite ({shown})")
        if average:
            values |= zip(losses, average(numbers).tolist(), strict=True)
        optimizer.zero_grad(set_to_none=True)  # parameters outside of this group get no update
        loss.backward()
        optimizer.step()
    return values
