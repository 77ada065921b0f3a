"""The snapshot that a training run is resumed from: its progress and its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.optim import Optimizer

from fewseg.engine.training.optimisation import restore_optimizer
from fewseg.model.checkpoint.published import load_strict
from fewseg.model.contract import Network
from fewseg.util import distributed
from fewseg.util.checkpoint import first_line, not_finite
from fewseg.util.errors import CheckpointError
from fewseg.util.log import get_log
from fewseg.util.state_file import load_training_state

BEST, LAST, STATE = "best.safetensors", "last.safetensors", "last.state.pt"
EARLIER = "best.earlier.safetensors"
"""The best weights that the state names, while ``best.safetensors`` is newer."""

Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Progress:
    """The progress of a run. All random draws depend only on seed, epoch and step, so no state of a random
    generator needs to be stored.

    Attributes:
        seed: seed of all random draws.
        epoch: the current epoch, from 0.
        step: number of steps completed in it.
        best_score: highest validation score so far; negative before the first validation.
        best_epoch: number of epochs completed when it was reached.
    """

    seed: Count
    epoch: Count = 0
    step: Count = 0
    best_score: Number = -1.0
    best_epoch: Annotated[Number, Field(ge=0)] = 0.0

    def after_step(self) -> Progress:
        """Return the progress one step later."""
        return replace(self, step=self.step + 1)

    def after_epoch(self) -> Progress:
        """Return the progress at the start of the next epoch."""
        return replace(self, epoch=self.epoch + 1, step=0)

    def __str__(self) -> str:
        return f"epoch {self.epoch + 1}, step {self.step}"


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Origin:
    """What a training began from, which a run that goes on keeps.

    Attributes:
        base_learner: SHA-256 of the base learner's checkpoint; None without one.
        mined_labels: SHA-256 of the description of the mined labels; None without them.
        changed: whether the training went on under other settings than it began with.
    """

    base_learner: str | None = None
    mined_labels: str | None = None
    changed: bool = False


@dataclass(frozen=True, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
class Snapshot:
    """A run's state, as ``engine.training.saving`` writes it into one file.

    Attributes:
        path: path of the file.
        model, optimizer: states of model and optimizer.
        progress: progress of the run.
        plan: settings that a resumed run must share with this one, such as the batch size.
        memories: the model's memory in addition to the weights, for every process, by rank.
        best: SHA-256 of the weights file that holds the best score; None if there is none, or in files of
            earlier versions.
        origin: what the training began from; unknown, and so without hashes, in files of earlier versions.
    """

    path: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    progress: Progress
    plan: dict[str, Any]
    memories: list[dict[str, Tensor]] = Field(default_factory=list)
    best: str | None = None
    origin: Origin = Origin()

    @classmethod
    def read(cls, path: str | Path) -> Snapshot:
        """Read the snapshot of a run.

        Args:
            path: the run's folder, or the ``last.state.pt`` in it.

        Raises:
            CheckpointError: there is no snapshot, or a field of it is malformed.
        """
        path = Path(path)
        file = path / STATE if path.is_dir() else path
        state = load_training_state(file)
        if not {"model", "optimizer", "progress", "plan"} <= state.keys():
            raise CheckpointError(f"{file}: no snapshot of a training run; name a folder that holds {STATE}")
        fields = {name: state[name] for name in cls.__dataclass_fields__ if name in state}
        if "best" not in state:  # earlier versions, which kept the memory of the main process only
            fields["memories"] = [state["memory"]] if state.get("memory") else []
        try:
            if not isinstance(state["progress"], dict):
                raise TypeError("progress: input should be a valid dictionary")
            missing = [
                f"progress.{name}" for name in Progress.__dataclass_fields__.keys() - state["progress"].keys()
            ]
            if missing or "memories" not in fields:
                raise TypeError(f"{', '.join(sorted(missing)) or 'memories'} is missing")
            fields["progress"] = Progress(**state["progress"])
            fields["origin"] = Origin(**state.get("origin", {}))
            return cls(**{**fields, "path": file})
        except (ValidationError, TypeError) as failure:
            raise CheckpointError(f"{file}: malformed: {_fault(failure)}; copy it again") from failure

    def restore(self, model: Network, optimizer: Optimizer, *, moments: bool = True) -> None:
        """Load the state into model and optimizer; learning rates and weight decay of ``optimizer`` are kept.

        Args:
            model, optimizer: model and optimizer of the resumed run.
            moments: whether the moments of the optimizer are loaded.

        Raises:
            CheckpointError: the state does not fit the model or the optimizer.
        """
        try:
            load_strict(model, self.model)
            if moments:
                restore_optimizer(optimizer, self.optimizer)
            if broken := not_finite(self.model):
                raise ValueError(f"{broken} has values that are NaN or infinite")
            model.memory.restore(self._memory())
        except (ValueError, RuntimeError) as failure:
            raise CheckpointError(f"{self.path}: cannot be resumed: {first_line(failure)}") from failure
        except (KeyError, TypeError, AttributeError) as failure:
            wrong = f"{failure} is missing" if isinstance(failure, KeyError) else first_line(failure)
            raise CheckpointError(f"{self.path}: malformed: {wrong}; copy it again") from failure

    def _memory(self) -> Mapping[str, Tensor]:
        """Return the memory of this process, or that of all if the number of processes has changed."""
        if len(self.memories) == distributed.world_size():
            return self.memories[distributed.rank()]
        return {name: value for memory in self.memories for name, value in memory.items()}

    def tell_other_processes(self) -> None:
        """Warn in one line if the run is resumed with another number of processes."""
        before, now = len(self.memories), distributed.world_size()
        if before not in (0, now) and distributed.is_main():
            known = "; each starts from all that they remembered" if any(self.memories) else ""
            get_log("train").warning(
                "the run goes on with %d processes instead of %d: the batches stay the same, the random "
                "draws inside a step do not%s",
                now,
                before,
                known,
            )


def _fault(failure: ValidationError | TypeError) -> str:
    """Return which field is wrong and why."""
    if not isinstance(failure, ValidationError):
        return first_line(failure)
    first = failure.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    section = failure.title.lower() + "." if failure.title == "Progress" else ""
    return f"{section}{where}: {first['msg'].lower()}"
