"""The folder of a training: for one process at a time, untouched by a start that fails, kept unless told."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fewseg.engine.setup.lookup import otherwise, shorter_run
from fewseg.engine.setup.run_path import RUN_CONFIG, RUN_LOG, run_folder
from fewseg.engine.training.snapshot import BEST, EARLIER, LAST, STATE
from fewseg.util import distributed
from fewseg.util.checkpoint import existing_file, read_meta
from fewseg.util.config import Config
from fewseg.util.config.differences import TRAINING
from fewseg.util.config.types import Effect
from fewseg.util.errors import UserError
from fewseg.util.files import remove_leftovers, write_text
from fewseg.util.lock import lock_folder
from fewseg.util.log import get_log, log_to_file

WEIGHTS = (BEST, EARLIER, LAST, STATE)
"""What a training is kept for."""

BOARD = "board"
"""The folder of TensorBoard's files in a run's folder."""


class RunFolder:
    """Where a training writes, for as long as it is entered.

    The lock is taken at once where the folder is there, and with the first file where it is not, so that a
    start that fails leaves nothing behind.

    Args:
        config: of the training.
        overwrite: begin anew where an earlier training lies.

    Attributes:
        path: of the folder.
        earlier_state: what ``Train.resume`` goes on from; None: the training begins anew. Known once entered.
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

    def begin(self) -> None:
        """Make the folder ready for the files of the run; network, weights and data stand now.

        Raises:
            UserError: another training runs or lies there, or nothing can be written.
        """
        if not self._locked:
            self._lock()
            self._refuse_another()
        if not distributed.is_main():
            return
        try:
            remove_leftovers(self.path, (*WEIGHTS, RUN_CONFIG))
            if self.earlier_state is None:
                self._clear()
        except OSError as failure:
            raise UserError(f"{self.path}: {failure.strerror}; choose another folder") from failure
        plain = self._config.with_values(Train={"resume": None})  # how it was started is no part of a run
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
        if distributed.is_main() and (shorter := shorter_run(self._config)):
            get_log("train").warning(
                "%s: nothing to go on with, the training begins anew; %s differs in epochs only: to go on "
                "with that, say --opts resume %s",
                *(self.path, shorter, shorter),
            )
        return None

    def _refuse_another(self) -> None:
        """Refuse a folder that holds a training, unless that is gone on with or to be overwritten."""
        refusal = distributed.from_main(self._refusal() if distributed.is_main() else None)
        if refusal is not None:
            raise UserError(refusal)

    def _refusal(self) -> str | None:
        state = self.earlier_state
        goes_on = state is not None and state.parent.resolve() == self.path.resolve()
        if self._overwrite or goes_on or not _made(self.path, WEIGHTS):
            return None
        if self._config.Train.resume == "auto":
            cure = f"there is no {STATE} to go on from: begin anew with --overwrite"
        else:
            cure = "go on with it by --opts resume auto, begin anew with --overwrite"
        return (
            f"{self.path}: holds {self._earlier_training()}; {cure}, "
            "or choose another folder by --opts save_path PATH"
        )

    def _earlier_training(self) -> str:
        """Say how far the training in the folder has come, and where its config differs."""
        other = otherwise(self.path, self._config, [Effect.NAME, *TRAINING])
        return f"{_reached(self.path)}{other}"

    def _clear(self) -> None:
        """Remove what an earlier training made."""
        if _made(self.path, WEIGHTS):
            get_log("train").warning("overwriting %s in %s", self._earlier_training(), self.path)
        for path in _made(self.path, (*WEIGHTS, RUN_LOG, RUN_CONFIG, BOARD)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _folder_of(config: Config) -> Path:
    """Return the folder to write into; a run goes on where its state lies, unless ``save_path`` is set."""
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
    """Say how far the training in a folder has come, as its weights know it."""
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
