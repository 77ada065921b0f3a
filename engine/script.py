"""What the scripts share: the runs that a command line asks for, and errors as one line, not a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from engine.interrupt import Interrupted
from util import distributed
from util.config import Config, load_config
from util.errors import UserError
from util.log import log_warnings

USER_ERROR, STOPPED = 2, 130


def run_script(main: Callable[[], None]) -> None:
    """Run ``main``; what the user can mend is printed as one line and ends with exit status 2."""
    log_warnings()
    try:
        main()
    except Interrupted as stop:
        print(one_line(stop), file=sys.stderr)
        sys.exit(STOPPED)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(STOPPED)
    finally:
        distributed.stop()


def one_line(error: Exception) -> str:
    """Return the message of an error; of one that a loader's worker passed on, without its traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")


def with_changes(opts: Sequence[str], changes: Mapping[str, object]) -> list[str]:
    """Return ``--opts`` pairs in which ``changes`` take the place of what was said about the same keys."""
    pairs = list(zip(opts[::2], opts[1::2], strict=False))
    kept = [part for key, value in pairs if key.rpartition(".")[2] not in changes for part in (key, value)]
    rest = list(opts[2 * len(pairs) :])  # a key without its value, for the config to complain about
    return [*kept, *(str(part) for pair in changes.items() for part in pair), *rest]


def configs_of_runs(
    path: str | Path,
    opts: Sequence[str],
    changes: Mapping[str, object],
    folds: Sequence[int] | None,
    shots: Sequence[int] | None,
) -> Iterator[Config]:
    """Yield a config per fold and number of shots.

    Args:
        path: of the YAML file.
        opts: changes to it by the user.
        changes: further ones; None leaves a key as it is.
        folds, shots: to run; by default what the config tests, or else its own.
    """
    common = with_changes(opts, {key: value for key, value in changes.items() if value is not None})
    config = load_config(path, common)
    for fold in folds or config.Test_Finetune.folds or [config.Data.split]:
        for shot in shots or config.Test_Finetune.shots or [config.Data.shot]:
            yield load_config(path, with_changes(common, {"split": fold, "shot": shot}))


def require_writable(folder: str | Path) -> Path:
    """Make ``folder`` and return it.

    Raises:
        UserError: nothing can be written there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise UserError(
            f"{folder}: cannot be made ({failure.strerror}); choose another: --opts save_path PATH"
        ) from failure
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: nothing can be written there; choose another: --opts save_path PATH")
    return folder
