"""The steps whose losses still lie on the device, where the host has not looked at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewseg.engine.training.snapshot import Progress


@dataclass(frozen=True)
class Seen:
    """A step whose losses are known.

    Attributes:
        before: the progress before it.
        batch: the names of its images, one line for each query.
        losses: the losses by name.
        not_finite: whether its losses, or those of a step before, are not finite.
    """

    before: Progress
    batch: Sequence[str]
    losses: Mapping[str, float]
    not_finite: bool

    @property
    def total(self) -> float:
        """The loss that was minimised."""
        return sum(self.losses.values())

    def fault(self) -> str:
        """Return the message about a loss that is not finite."""
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        at, names = self.before.after_step(), "; ".join(self.batch)
        return f"{at}: the loss is not finite ({shown}); the batch: {names}"


class Unseen:
    """Collects the losses of steps, which are then copied from the device all at once."""

    def __init__(self) -> None:
        self._steps: list[tuple[Progress, Sequence[str], tuple[str, ...]]] = []
        self._values: list[Tensor] = []

    def add(
        self, before: Progress, batch: Sequence[str], losses: Mapping[str, Tensor], not_finite: Tensor
    ) -> None:
        """Add a step, whose losses and ``not_finite`` are numbers on the device; see ``Seen``."""
        self._steps.append((before, batch, tuple(losses)))
        self._values += [*losses.values(), not_finite.clone()]

    def look(self) -> list[Seen]:
        """Return the steps since the last look, after one wait for the device."""
        steps, values = self._steps, self._values
        self._steps, self._values = [], []
        numbers = iter(torch.stack(values).tolist() if values else ())
        return [
            Seen(before, batch, {name: next(numbers) for name in names}, next(numbers) > 0)
            for before, batch, names in steps
        ]
