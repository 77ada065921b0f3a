"""One optimisation step, the same for base learners and few-shot models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewseg.model.contract import Network
from fewseg.model.layer.loss import Average, means_over_processes, total
from fewseg.util import distributed
from fewseg.util.errors import UserError

Forward = Callable[[Any], Any]


class NotFiniteError(UserError):
    """The loss is NaN or infinite."""


class Divisible(Protocol):
    """A batch that can be processed part by part."""

    def parts(self, count: int) -> list[Any]:
        """Return ``count`` equal parts along the first axis."""

    def labelled(self) -> Tensor:
        """Return the number of pixels that losses count, on the batch's device."""


def training_step(
    model: Network,
    batch: Any,
    optimizer: Optimizer,
    *,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
    accumulate: int = 1,
) -> dict[str, Tensor]:
    """Minimise the sum of the losses of ``batch`` by one step and return the losses by name, on the device.

    Nothing here waits for the device. From the first loss on that is NaN or infinite, ``found_inf`` of an
    optimizer of ``create_optimizer`` is 1 on the device, and no step changes a weight.

    Several processes have a share of the batch each; they minimise and return the losses of the whole batch.

    If the model has alternating losses, each group of them is minimised by its own step with its own forward
    pass, which uses the weights after the step before.

    Args:
        model: the model, which returns its losses by name and says which are ``alternating``.
        batch: an episode, or labelled images, on the model's device.
        optimizer: the optimizer, whose learning rates the caller sets.
        forward: the wrapped model (distributed, compiled), if any.
        generator: random generator for losses that sample pixels.
        accumulate: number of parts of the batch whose gradients are added up one after the other, which
            takes the memory of one part.
    """
    forward = model if forward is None else forward  # a compiled module has no truth value
    average = distributed.all_mean if distributed.world_size() > 1 else None
    shares = _shares(batch, accumulate, average) if accumulate > 1 else [(batch, None)]
    values: dict[str, Tensor] = {}
    for turn in model.alternating or (None,):
        optimizer.zero_grad(set_to_none=True)  # parameters outside of this group get no update
        numbers: Tensor | None = None
        for number, (part, share) in enumerate(shares, 1):
            with means_over_processes(average), _gradients_kept(forward, number < len(shares)):
                losses = model.losses_on(part, forward, generator)
                losses = losses if turn is None else {name: losses[name] for name in turn}
                if share is not None:
                    losses = {name: share.to(loss.dtype) * loss for name, loss in losses.items()}
                total(losses).backward()
            own = torch.stack([loss.detach() for loss in losses.values()])
            numbers = own if numbers is None else numbers + own
        assert numbers is not None  # there is a part
        numbers = average(numbers) if average else numbers
        _note_if_not_finite(optimizer, numbers)
        optimizer.step()
        values |= zip(losses, numbers.unbind(), strict=True)
    return values


def _shares(batch: Divisible, count: int, average: Average | None) -> list[tuple[Any, Tensor]]:
    """Return the parts of a batch and the share of each in the labelled pixels of all.

    The sum of the parts' mean losses, weighted by these, is the mean over the pixels of the batch.
    """
    parts = batch.parts(count)
    pixels = torch.stack([part.labelled() for part in parts]).double()
    pixels = average(pixels) if average else pixels
    return list(zip(parts, (pixels / pixels.sum()).unbind(), strict=True))


def _gradients_kept(forward: Forward, kept: bool) -> Any:
    """Return a context in which processes keep their gradients to themselves, if ``kept``, as more follow."""
    unsynchronised = getattr(forward, "no_sync", None)
    return unsynchronised() if kept and unsynchronised is not None else nullcontext()


def _note_if_not_finite(optimizer: Optimizer, losses: Tensor) -> None:
    """Let no step of ``optimizer`` change a weight any more if the sum of ``losses`` is not finite.

    The losses are those of all processes, so all of them agree.
    """
    noted: Tensor | None = getattr(optimizer, "found_inf", None)
    if noted is not None:
        torch.maximum(noted, (~torch.isfinite(losses.sum())).to(noted), out=noted)
