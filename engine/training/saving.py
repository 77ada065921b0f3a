"""Write the files of a training run: the weights ``best`` and ``last``, and the state to resume from.

``last.state.pt`` is authoritative. It holds all that a resumed run needs, including the weights, and the
checksum of the best weights. Tests and later stages read the weights files. A resumed run makes them agree
with the state, which repairs a crash between any two writes:

- ``last.safetensors`` follows from the state alone, and is written after it;
- ``best.safetensors`` may be newer than the state. The file that the state names is kept beside it until the
  next state is written, and comes back if the run goes on from the older one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from fewseg.engine.training.snapshot import BEST, EARLIER, LAST, STATE, Origin, Progress, Snapshot
from fewseg.engine.training.step import NotFiniteError
from fewseg.model.contract import Network
from fewseg.util import distributed
from fewseg.util.checkpoint import file_hash, not_finite, pack_checkpoint, write_checkpoint
from fewseg.util.errors import CheckpointError
from fewseg.util.files import write_atomically
from fewseg.util.log import get_log
from fewseg.util.state_file import save_training_state

Memories = Sequence[Mapping[str, Tensor]]
"""The model's memory in addition to its weights, for every process, by rank."""


class Snapshots:
    """The files of one run.

    Args:
        folder: folder of the run.
        meta: description of the model for the metadata of the checkpoints.
        plan: settings that a resumed run must share with this one, such as the batch size.
        minutes: minutes after which a snapshot is due; None: never.
        earlier: snapshot that the run resumes from; None for a new run.
        origin: what the training began from.
    """

    def __init__(
        self,
        folder: Path,
        meta: Mapping[str, Any],
        plan: Mapping[str, Any],
        minutes: float | None = None,
        earlier: Snapshot | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.folder, self._meta, self._plan, self._minutes = folder, meta, plan, minutes
        self._earlier, self.origin = earlier, origin or Origin()
        self._begun = earlier is not None
        self._best: str | None = None
        self._named: str | None = None
        self._written = time.monotonic()

    @property
    def begun(self) -> bool:
        """Whether there is a state to resume from."""
        return self._begun

    def due(self) -> bool:
        """Return whether this is the main process and the last snapshot is older than ``minutes``."""
        waited = time.monotonic() - self._written
        return self._minutes is not None and distributed.is_main() and waited >= 60 * self._minutes

    def save_last(
        self,
        model: Network,
        optimizer: Optimizer,
        progress: Progress,
        memories: Memories,
    ) -> None:
        """Write the state to resume from, and the current weights.

        Args:
            model, optimizer, progress: those of the run.
            memories: the memories of all processes.

        Raises:
            NotFiniteError: weights are NaN or infinite; the earlier files are kept.
            CheckpointError: a file cannot be written.
        """
        content = self._packed(model, progress)
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(progress),
            "plan": dict(self._plan),
            "memories": [dict(memory) for memory in memories],
            "best": self._best,
            "origin": asdict(self.origin),
        }
        save_training_state(self.folder / STATE, state)
        self._named, self._begun = self._best, True
        write_checkpoint(self.folder / LAST, content)
        (self.folder / EARLIER).unlink(missing_ok=True)
        self._written = time.monotonic()

    def save_best(self, model: Network, progress: Progress) -> None:
        """Write the weights of the best validation; the best weights that the state names are kept."""
        content = self._packed(model, progress)
        if self._named is not None and self._named == self._best:
            _link(self.folder / BEST, self.folder / EARLIER)
        write_checkpoint(self.folder / BEST, content)
        self._best = hashlib.sha256(content).hexdigest()

    def begin(self, model: Network, optimizer: Optimizer, progress: Progress) -> Progress:
        """Make all files consistent with the restored snapshot, if any, and with the new plan.

        Args:
            model, optimizer: restored from the snapshot.
            progress: the progress to resume from.

        Returns:
            ``progress``, without a best score if its weights are lost.
        """
        earlier = self._earlier
        if earlier is None:
            return progress
        if distributed.is_main():
            best = _best_of(earlier)
            found = best is None or self._bring_back(best, earlier)
            self._best = self._named = best if found else None
            progress = progress if found else replace(progress, best_score=-1.0)
            own = earlier.path.resolve() == (self.folder / STATE).resolve()
            if own and (earlier.plan, earlier.progress) == (self._plan, progress):
                self._bring_last(model, progress)
            else:
                self.save_last(model, optimizer, progress, earlier.memories)
        return distributed.from_main(progress)

    def _bring_last(self, model: Network, progress: Progress) -> None:
        """Write the weights of the state if they are missing, and remove files that it does not need."""
        content = self._packed(model, progress)
        if not _is(self.folder / LAST, hashlib.sha256(content).hexdigest()):
            write_checkpoint(self.folder / LAST, content)
        (self.folder / EARLIER).unlink(missing_ok=True)

    def _bring_back(self, best: str, snapshot: Snapshot) -> bool:
        """Restore the file of the best weights that a snapshot names; return whether they were found."""
        own, theirs = self.folder, snapshot.path.parent
        places = [own / BEST, own / EARLIER, theirs / BEST, theirs / EARLIER]
        found = next((path for path in places if _is(path, best)), None)
        if found is None:
            get_log("train").warning(
                "%s: the weights of the best score so far (%.2f, after epoch %g) are not there any more; "
                "the next validation chooses anew",
                *(own / BEST, 100 * snapshot.progress.best_score, snapshot.progress.best_epoch),
            )
        elif found != own / BEST:
            _copy(found, own / BEST)
        return found is not None

    def _packed(self, model: Network, progress: Progress) -> bytes:
        """Return the content of a weights file."""
        state = model.state_dict()
        if broken := not_finite(state):
            raise NotFiniteError(
                f"{progress}: {broken} is NaN or infinite after the last step, so no snapshot is written; "
                "a lower base_lr or clip_norm may help"
            )
        reached = {"epoch": progress.epoch, "step": progress.step, "score": progress.best_score}
        return pack_checkpoint(state, {**self._meta, **reached})


def memories_alone(model: Network) -> Memories:
    """Return the memories of all processes without communication, which requires that they are empty.

    Raises:
        RuntimeError: there are several processes, and their memories are not empty.
    """
    own, processes = model.memory.state(), distributed.world_size()
    if own and processes > 1:
        raise RuntimeError("what the other processes remember is lost")
    return [own] * processes


def _best_of(snapshot: Snapshot) -> str | None:
    """Return the checksum of a run's best weights, which states of earlier versions do not contain."""
    if snapshot.best is not None or snapshot.progress.best_score < 0:
        return snapshot.best
    path = snapshot.path.parent / BEST
    return file_hash(path) if path.is_file() else "lost"


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and file_hash(path) == digest


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, lambda temporary: shutil.copyfile(source, temporary), CheckpointError)


def _link(source: Path, target: Path) -> None:
    """Create a hard link to ``source``, or copy it where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        _copy(source, target)
