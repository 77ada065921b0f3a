"""What a training run leaves behind: the weights ``best`` and ``last``, and the state to go on from.

``last.state.pt`` holds all that a resumed run needs, weights included, so that no crash between two files can
tear it apart. ``best.safetensors`` and ``last.safetensors`` are what tests and later stages read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from model.fewshot import FewShotModel
from util.checkpoint import save_checkpoint
from util.errors import CheckpointError
from util.state_file import load_training_state, save_training_state

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "last.state.pt"


@dataclass
class Progress:
    """How far a run has come. Every random draw follows from the seed and the position, so no generator's
    state needs to be kept.

    Attributes:
        seed: of every random draw.
        epoch: the current one, from 0.
        step: steps done in it.
        best_score: highest validation score so far.
        best_epoch: when it was reached, in epochs done.
    """

    seed: int
    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: float = 0.0


@dataclass(frozen=True)
class Snapshots:
    """Writes the files of one run.

    Attributes:
        folder: of the run.
        meta: what the model is, for the checkpoints' metadata.
        plan: what a resumed run must share with this one, such as the batch size.
    """

    folder: Path
    meta: Mapping[str, Any]
    plan: Mapping[str, Any]

    def save_last(self, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
        """Write the state to go on from, and the present weights."""
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(progress),
            "plan": dict(self.plan),
            "memory": model.meta.memory_state() if isinstance(model, FewShotModel) else {},
        }
        save_training_state(self.folder / STATE, state)
        self._save(LAST, model, progress)

    def save_best(self, model: nn.Module, progress: Progress) -> None:
        """Write the weights that validate best."""
        self._save(BEST, model, progress)

    def _save(self, name: str, model: nn.Module, progress: Progress) -> None:
        reached = {"epoch": progress.epoch, "step": progress.step, "score": progress.best_score}
        save_checkpoint(self.folder / name, model.state_dict(), {**self.meta, **reached})


@dataclass(frozen=True)
class Snapshot:
    """A run's state as it was read.

    Attributes:
        path: of the file.
        state: what ``Snapshots.save_last`` wrote.
    """

    path: Path
    state: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Snapshot:
        """Read the snapshot of a run.

        Args:
            path: the run's folder, or the ``last.state.pt`` in it.

        Raises:
            CheckpointError: there is none.
        """
        path = Path(path)
        file = path / STATE if path.is_dir() else path
        state = load_training_state(file)
        if not {"model", "optimizer", "progress", "plan"} <= state.keys():
            raise CheckpointError(f"{file}: no snapshot of a training run; name a folder that holds {STATE}")
        return cls(file, state)

    @property
    def progress(self) -> Progress:
        """How far the run had come."""
        return Progress(**self.state["progress"])

    def restore(self, plan: Mapping[str, Any], model: nn.Module, optimizer: Optimizer) -> None:
        """Put model and optimizer where the run stopped.

        Raises:
            CheckpointError: the run had another plan.
        """
        for key, value in plan.items():
            theirs = self.state["plan"].get(key)
            if theirs != value:
                raise CheckpointError(
                    f"{self.path}: was written with {key} {theirs}, but this run has {key} {value}; resume "
                    "with the same settings, or start anew from its weights: --opts weight PATH"
                )
        model.load_state_dict(self.state["model"])
        optimizer.load_state_dict(self.state["optimizer"])
        if isinstance(model, FewShotModel):
            model.meta.restore_memory(self.state.get("memory", {}))
