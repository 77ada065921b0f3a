"""The record of a training that has ended: by it others recognise that there is nothing left to do."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from fewseg.engine.setup.run_path import run_key
from fewseg.engine.training.loop import TrainingLoop
from fewseg.engine.training.snapshot import BEST, LAST, Count, Number
from fewseg.util import distributed
from fewseg.util.checkpoint import file_hash, first_line
from fewseg.util.config import Config
from fewseg.util.files import write_text
from fewseg.util.log import get_log
from fewseg.util.results.result import versions

FINISHED = "finished.json"
"""The file of the record in a run's folder. It is there only while the training in the folder has ended."""

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="ignore"))
class Finished:
    """What a training that has ended says about itself.

    Attributes:
        key: ``run_key`` of its config; None for a training that went on under other settings than it began
            with, because no config describes it.
        base_learner: SHA-256 of the checkpoint of the base learner that it started from; None where there is
            none, or where it is not known because an earlier version started the training.
        mined_labels: SHA-256 of the description of the mined labels that it was started with; None likewise.
        epochs: the number of epochs that it took.
        best_score: the highest validation score; None without a validation.
        best_epoch: the number of epochs completed when it was reached.
        weights: file name -> SHA-256 of the weights that there are, ``BEST`` and ``LAST``.
        parameters: number of parameters of the network, those that do not learn included.
        seconds_a_step: median over the steps of the last start that made any, with the wait for data.
        peak_gib: peak memory of the main process in GiB: on the GPU, else in main memory.
        processes: number of processes.
        versions: of FewSeg, Python and torch.
    """

    key: str | None
    base_learner: Hash | None
    mined_labels: Hash | None
    epochs: Count
    best_score: Number | None
    best_epoch: Annotated[Number, Field(ge=0)]
    weights: dict[str, Hash]
    parameters: Count
    seconds_a_step: Annotated[Number, Field(ge=0)] | None
    peak_gib: Annotated[Number, Field(ge=0)]
    processes: Count
    versions: dict[str, str]

    @classmethod
    def read(cls, folder: str | Path) -> Finished | None:
        """Return the record in a run's folder; None where there is none.

        A damaged one counts as none, with a warning.
        """
        path = Path(folder) / FINISHED
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as failure:
            reason = _fault(failure) if isinstance(failure, ValidationError) else first_line(failure)
            get_log("train").warning("%s: damaged (%s), so it counts as missing", path, reason)
            return None

    def write(self, folder: str | Path) -> None:
        """Write the record into a run's folder, atomically.

        Raises:
            UserError: it cannot be written.
        """
        write_text(Path(folder) / FINISHED, json.dumps(asdict(self), indent=1) + "\n")

    def is_same_training(self, other: Finished) -> bool:
        """Return whether both are of one training: of the same key, origin and weights."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("key", "base_learner", "mined_labels", "epochs", "weights")
        )


def write_finished(config: Config, loop: TrainingLoop) -> None:
    """Write the record of a training that has ended, in the main process.

    A record of the same training stays as it is where this start made no step.
    """
    if not distributed.is_main():
        return
    folder, finished = loop.snapshots.folder, _finished(config, loop)
    earlier = Finished.read(folder)
    if finished.seconds_a_step is None and earlier is not None and finished.is_same_training(earlier):
        return
    finished.write(folder)


def _finished(config: Config, loop: TrainingLoop) -> Finished:
    folder, origin, reached = loop.snapshots.folder, loop.snapshots.origin, loop.reached
    weights = (folder / name for name in (BEST, LAST))
    return Finished(
        key=None if origin.changed else run_key(config),
        base_learner=origin.base_learner,
        mined_labels=origin.mined_labels,
        epochs=reached.epoch,
        best_score=None if reached.best_score < 0 else reached.best_score,
        best_epoch=reached.best_epoch,
        weights={path.name: file_hash(path) for path in weights if path.is_file()},
        parameters=sum(parameter.numel() for parameter in loop.model.parameters()),
        seconds_a_step=loop.pace.median(),
        peak_gib=peak_gib(loop.device),
        processes=distributed.world_size(),
        versions=versions(),
    )


def peak_gib(device: torch.device) -> float:
    """Return the peak memory of this process in GiB: on ``device`` if that is a GPU, else in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _fault(failure: ValidationError) -> str:
    first = failure.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}"
