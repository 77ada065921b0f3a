"""How long a training runs, and what it does along the way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopSettings:
    """How long and how a loop runs; the names are the config's.

    Attributes:
        epochs: at most.
        stop_interval: epochs without a new best after which it ends.
        save_freq: epochs between snapshots.
        print_freq: steps between two lines on the board.
        half_epochs: validate in the middle of epochs too, from the second one on.
        evaluate: validate at all.
        val_freq: epochs between two validations.
        fix_bn: keep every BatchNorm in evaluation mode; None leaves it to the model.
        amp: run the network in bfloat16 where that is safe.
        compile: compile the network.
    """

    epochs: int
    stop_interval: int = 75
    save_freq: int = 10
    print_freq: int = 10
    half_epochs: bool = False
    evaluate: bool = True
    val_freq: int = 1
    fix_bn: bool | None = None
    amp: bool = False
    compile: bool = False

    def validates_after(self, epoch: int) -> bool:
        """Return whether a validation follows so many epochs; the last one always has it."""
        return self.evaluate and (epoch % self.val_freq == 0 or epoch == self.epochs)
