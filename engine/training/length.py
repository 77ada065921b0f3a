"""The length of a training: a number of epochs, or of steps where a paper counts these."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewseg.util.config.schema import Train


@dataclass(frozen=True)
class Length:
    """The steps of a training, of which all epochs but the last have the same number.

    Attributes:
        steps: number of steps of the training.
        steps_per_epoch: number of steps of a whole epoch.
    """

    steps: int
    steps_per_epoch: int

    @classmethod
    def of(cls, train: Train, steps_per_epoch: int) -> Length:
        """Return the length that ends first: ``Train.epochs`` or ``Train.max_steps``."""
        steps = train.epochs * steps_per_epoch
        return cls(steps if train.max_steps is None else min(steps, train.max_steps), steps_per_epoch)

    @property
    def epochs(self) -> int:
        """The number of epochs that are begun."""
        return math.ceil(self.steps / self.steps_per_epoch)

    def steps_in(self, epoch: int) -> int:
        """Return the number of steps of an epoch, counted from 0; the training may end within it."""
        return min(self.steps_per_epoch, self.steps - epoch * self.steps_per_epoch)

    def number(self, epochs: float, steps: int = 0) -> int:
        """Return the number of steps completed after some epochs and steps; the last epoch may be short."""
        return min(round(epochs * self.steps_per_epoch) + steps, self.steps)
