"""What the scripts share: the configs of the runs in a command line, and errors as one line."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fewseg.engine.setup.interrupt import Interrupted
from fewseg.util import distributed
from fewseg.util.config import Config, load_config
from fewseg.util.errors import UserError
from fewseg.util.log import get_log, log_warnings
from fewseg.util.peers import LOST

USER_ERROR, STOPPED = 2, 130
"""Exit statuses: an error that the user can correct, and a request to stop; ``LOST`` is a third one."""

LAUNCHED = "FEWSEG_LAUNCHED"
"""Environment variable of processes whose errors ``tools/launch.py`` prints, which started them."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable with the file in which torchrun expects the reason of a failure."""


def run_script(main: Callable[[], None]) -> None:
    """Run ``main``; an error that the user can correct is printed as one line and gives exit status 2.

    If torchrun started several processes, the first one prints for all, and errors are passed to torchrun.
    """
    log_warnings()
    failed = True
    try:
        main()
        failed = False
    except Interrupted as stop:
        _say(one_line(stop))
        sys.exit(STOPPED)
    except UserError as error:
        _say_error(one_line(error))
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        _say("stopped")
        sys.exit(STOPPED)
    except OSError as failure:
        if failure.errno not in _FULL:
            raise
        place = f"{failure.filename}: " if failure.filename else ""
        _say_error(f"{place}{failure.strerror}; free space, on the disk or in /dev/shm")
        sys.exit(USER_ERROR)
    except RuntimeError as error:
        if not distributed.is_connection_error(error):
            raise
        _say_lost(error)
        sys.exit(LOST)
    finally:
        distributed.stop(failed)


def _say(line: str) -> None:
    if _ERROR_FILE not in os.environ or os.environ.get("RANK") == "0":
        print(line, file=sys.stderr)


def _say_error(message: str) -> None:
    """Print an error once for all processes, unless ``tools/launch.py`` does so."""
    handed_over = _hand_over(message)
    if not handed_over or (LAUNCHED not in os.environ and os.environ.get("RANK") == "0"):
        print(f"error: {message}", file=sys.stderr)


def _say_lost(error: RuntimeError) -> None:
    """Say that the connection is lost; ``tools/launch.py`` does so where no other process says why."""
    own = distributed.rank()
    if LAUNCHED in os.environ and distributed.is_broken_off(error):
        cause = f"{distributed.lost()} had ended; the reason stands where that one ran"
        _hand_over(f"process {own} ended because {cause}", LOST)
    else:
        reason = " ".join(str(error).split())
        print(f"process {own} lost the connection to the others: {reason}", file=sys.stderr)


def _hand_over(message: str, status: int = USER_ERROR) -> bool:
    """Pass the reason of a failure to torchrun; return whether torchrun started this and it was passed."""
    if _ERROR_FILE not in os.environ:
        return False
    file = Path(os.environ[_ERROR_FILE])
    more = {"py_callstack": message, "timestamp": str(int(time.time()))}  # torchrun shows the first one
    facts = {"message": {"message": message, "extraInfo": more}, "status": status}
    try:
        file.write_text(json.dumps(facts), encoding="utf-8")
    except OSError:  # such as a full disk
        file.unlink(missing_ok=True)  # torchrun cannot parse an empty file
        return False
    return True


def one_line(error: Exception) -> str:
    """Return the message of an error, without the traceback that a loader's worker adds to it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")


def with_changes(opts: Sequence[str], changes: Mapping[str, object]) -> list[str]:
    """Return ``--opts`` pairs in which ``changes`` replace the pairs of the same keys, but no options."""
    pairs = list(zip(opts[::2], opts[1::2], strict=False))
    kept = [
        part
        for key, value in pairs
        if key.count(".") > 1 or key.rpartition(".")[2] not in changes
        for part in (key, value)
    ]
    rest = list(opts[2 * len(pairs) :])  # a key without its value, which the config will refuse
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
        path: path of the YAML file.
        opts: the user's changes to it.
        changes: further changes; a key with None is not changed.
        folds, shots: folds and numbers of shots, by default those that the config tests, or else its own.
    """
    common = with_changes(opts, {key: value for key, value in changes.items() if value is not None})
    config = load_config(path, common)
    for fold in folds or config.Test_Finetune.folds or [config.Data.split]:
        for shot in shots or config.Test_Finetune.shots or [config.Data.shot]:
            yield load_config(path, with_changes(common, {"split": fold, "shot": shot}))


def log_notices(configs: Iterable[Config]) -> None:
    """Log every key of these configs that is valid but has no effect, each once."""
    for notice in dict.fromkeys(notice for config in configs for notice in config.notices):
        get_log("config").info(notice)


def require_writable(folder: str | Path) -> Path:
    """Create ``folder`` if it is missing, and return it.

    Raises:
        UserError: the folder cannot be created or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise UserError(
            f"{folder}: cannot be made ({failure.strerror}); choose another by --out"
        ) from failure
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: nothing can be written there; choose another by --out")
    return folder
