"""The folder of a training: it is locked, not changed by a failed start, and only overwritten on request."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fewseg.engine.setup.lookup import otherwise, similar_run
from fewseg.engine.setup.run_path import RUN_CONFIG, RUN_LOG, run_folder
from fewseg.engine.training.finished import FINISHED
from fewseg.engine.training.snapshot import BEST, EARLIER, LAST, STATE
from fewseg.util import distributed
from fewseg.util.checkpoint import existing_file, read_meta
from fewseg.util.config import Config
from fewseg.util.config.differences import TRAINING
from fewseg.util.config.types import Effect
from fewseg.util.errors import UserError
from fewseg.util.files import remove_leftovers, write_text
from fewseg.util.live import LIVE
from fewseg.util.lock import lock_folder
from fewseg.util.log import get_log, log_to_file

WEIGHTS = (BEST, EARLIER, LAST, STATE)
"""The files of a training that must not be lost."""

BOARD = "board"
"""The folder of TensorBoard's files in a run's folder."""


class RunFolder:
    """A context in which a training has its folder locked.

    The folder is locked on entry if it exists, and otherwise with the first file, so that a failed start
    leaves nothing behind.

    Args:
        config: config of the training.
        overwrite: whether to overwrite an earlier training.

    Attributes:
        path: path of the folder.
        earlier_state: state file that ``Train.resume`` continues from, or None; it is set on entry.
    """

    def __init__(self, config: Config, overwrite: bool = False) -> None:
        self.path = _folder_of(config)
        self.earlier_state: Path | None = None
        self._config, self._overwrite = config, overwrite
        self._open = ExitStack()
        self._locked = False

    def __enter__(self) -> RunFolder:
        if self._overwrite and self._config.Train.resume is not None:
            raise UserError("--overwrite begins anew and --opts resume goes on; give one of them")
        with self._open:
            if distributed.from_main(self.path.is_dir()):
                self._lock()
            self.earlier_state = self._find_state()
            self._refuse_another()
            self._open = self._open.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def begin(self, done: bool = False) -> None:
        """Prepare the folder for the files of the run, after network, weights and data have been loaded.

        Args:
            done: whether the training in the folder has ended, so that nothing of it will change.

        Raises:
            UserError: another training runs in the folder or is stored there, or nothing can be written.
        """
        if not self._locked:
            self._lock()
            self._refuse_another()
        if not distributed.is_main():
            return
        try:
            remove_leftovers(self.path, (*WEIGHTS, RUN_CONFIG, FINISHED, LIVE))
            if not (done and self._goes_on()):
                (self.path / FINISHED).unlink(missing_ok=True)
            if self.earlier_state is None:
                self._clear()
        except OSError as failure:
            raise UserError(f"{self.path}: {failure.strerror}; choose another folder") from failure
        plain = self._config.with_values(Train={"resume": None})  # how a run is started is no part of it
        write_text(self.path / RUN_CONFIG, plain.dump_yaml())
        self._open.enter_context(log_to_file(self.path / RUN_LOG))

    def _lock(self) -> None:
        self._open.enter_context(lock_folder(self.path, "training"))
        self._locked = True

    def _find_state(self) -> Path | None:
        resume = self._config.Train.resume
        if resume != "auto":
            return None if resume is None else _file_of(Path(resume))
        if distributed.from_main((self.path / STATE).is_file()):
            return self.path / STATE
        if distributed.is_main() and (similar := similar_run(self._config)):
            other, difference = similar
            get_log("train").warning(
                "%s: nothing to go on with, the training begins anew; %s %s: to go on with that, say "
                "--opts resume %s",
                *(self.path, other, difference, other),
            )
        return None

    def _refuse_another(self) -> None:
        """Raise UserError if the folder holds a training that is neither resumed nor overwritten."""
        refusal = distributed.from_main(self._refusal() if distributed.is_main() else None)
        if refusal is not None:
            raise UserError(refusal)

    def _refusal(self) -> str | None:
        if self._overwrite or self._goes_on() or not _made(self.path, WEIGHTS):
            return None
        if self._config.Train.resume == "auto":
            cure = f"there is no {STATE} to go on from: begin anew with --overwrite"
        else:
            cure = "go on with it by --opts resume auto, begin anew with --overwrite"
        return (
            f"{self.path}: holds {self._earlier_training()}; {cure}, "
            "or choose another folder by --opts save_path PATH"
        )

    def _goes_on(self) -> bool:
        """Return whether the run goes on with the training in its own folder."""
        state = self.earlier_state
        return state is not None and state.parent.resolve() == self.path.resolve()

    def _earlier_training(self) -> str:
        """Return the progress of the training in the folder, and the differences of its config, in words."""
        other = otherwise(self.path, self._config, [Effect.NAME, *TRAINING])
        return f"{_reached(self.path)}{other}"

    def _clear(self) -> None:
        """Remove the files of an earlier training."""
        if _made(self.path, WEIGHTS):
            get_log("train").warning("overwriting %s in %s", self._earlier_training(), self.path)
        for path in _made(self.path, (*WEIGHTS, RUN_LOG, RUN_CONFIG, BOARD)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _folder_of(config: Config) -> Path:
    """Return the folder to write to: that of the resumed state, unless ``save_path`` is set."""
    resume = config.Train.resume
    if resume in (None, "auto") or config.Train.save_path is not None:
        return run_folder(config)
    file = existing_file(_file_of(Path(resume)))
    return file.parent if file.name == STATE else run_folder(config)


def _file_of(state: Path) -> Path:
    return state / STATE if state.is_dir() else state


def _made(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).exists()]


def _reached(folder: Path) -> str:
    """Return the progress of the training in a folder in words, from the metadata of its weights."""
    for path in _made(folder, (LAST, BEST)):
        try:
            meta = read_meta(path)
        except UserError:
            continue
        if meta.get("score", -1) >= 0:
            return f"a training that reached epoch {meta.get('epoch')} (best score {100 * meta['score']:.2f})"
        if "epoch" in meta:
            return f"a training that reached epoch {meta['epoch']}"
    return "a training"
