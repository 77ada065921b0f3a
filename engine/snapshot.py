"""What a training run leaves behind: the weights ``best`` and ``last``, and the state to go on from.

``last.state.pt`` holds all that a resumed run needs, weights included, so that no crash between two files can
tear it apart. ``best.safetensors`` and ``last.safetensors`` are what tests and later stages read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from util.checkpoint import load_training_state, save_checkpoint, save_training_state
from util.errors import CheckpointError

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "last.state.pt"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        seed: of every random draw.
        epoch: the current one, from 0.
        step: steps done in it.
        best_score: highest validation score so far.
        best_epoch: when it was reached.
    """

    seed: int
    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: float = 0.0


class Snapshots:
    """The files of one run.

    Args:
        folder: of the run.
        meta: what the model is, for the checkpoints' metadata.
        plan: what must be equal in a resumed run: steps per epoch, batch size, ...
    """

    def __init__(self, folder: str | Path, meta: dict[str, Any], plan: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.meta = meta
        self.plan = plan

    def save_last(self, model: nn.Module, optimizer: Optimizer, progress: Progress) -> Path:
        """Write the state to go on from and the present weights; return the path of the state."""
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(progress),
            "plan": self.plan,
        }
        save_training_state(self.folder / STATE, state)
        self._save(LAST, model, progress, progress.best_score)
        return self.folder / STATE

    def save_best(self, model: nn.Module, progress: Progress) -> Path:
        """Write the weights that validate best."""
        return self._save(BEST, model, progress, progress.best_score)

    def resume(self, path: str | Path, model: nn.Module, optimizer: Optimizer) -> Progress:
        """Put model and optimizer where a run stopped.

        Args:
            path: the run's folder or its ``last.state.pt``.

        Raises:
            CheckpointError: no such snapshot, or one of another run.
        """
        path = Path(path)
        file = path / STATE if path.is_dir() else path
        state = load_training_state(file)
        if not {"model", "optimizer", "progress", "plan"} <= state.keys():
            raise CheckpointError(f"{file}: no snapshot of a training run; name a folder that holds {STATE}")
        for key, value in self.plan.items():
            if state["plan"].get(key) != value:
                raise CheckpointError(
                    f"{file}: was written with {key} = {state['plan'].get(key)}, this run has {value}; "
                    "resume with the same settings, or start anew from its weights with --opts weight PATH"
                )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"])

    def _save(self, name: str, model: nn.Module, progress: Progress, score: float) -> Path:
        reached = {"epoch": progress.epoch, "step": progress.step, "score": score}
        save_checkpoint(self.folder / name, model.state_dict(), {**self.meta, **reached})
        return self.folder / name
