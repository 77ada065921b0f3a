"""What the scripts share: the runs that a command line asks for, and errors as one line, not a traceback."""

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

USER_ERROR, LOST, STOPPED = 2, 3, 130
"""Exit statuses: an error that the user can mend; another process has ended; a request to stop."""

LAUNCHED = "FEWSEG_LAUNCHED"
"""Set for processes whose errors are printed by the one that started them (``tools/launch.py``)."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Where torchrun expects the reason of a failure."""


def run_script(main: Callable[[], None]) -> None:
    """Run ``main``; what the user can mend is printed as one line and ends with exit status 2.

    Where torchrun started several processes, the first one speaks for all, and errors are handed to torchrun.
    """
    log_warnings()
    try:
        main()
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
        if LAUNCHED not in os.environ or not distributed.is_broken_off(error):  # else another one says why
            reason = " ".join(str(error).split())
            line = f"process {distributed.rank()} lost the connection to the others: {reason}"
            print(line, file=sys.stderr)
        sys.exit(LOST)
    finally:
        distributed.stop()


def _say(line: str) -> None:
    if _ERROR_FILE not in os.environ or os.environ.get("RANK") == "0":
        print(line, file=sys.stderr)


def _say_error(message: str) -> None:
    """Print an error once for all processes; where ``tools/launch.py`` started them, leave that to it."""
    handed_over = _hand_over(message)
    if not handed_over or (LAUNCHED not in os.environ and os.environ.get("RANK") == "0"):
        print(f"error: {message}", file=sys.stderr)


def _hand_over(message: str) -> bool:
    """Give torchrun the reason of a failure; return whether there is one, and it could be given."""
    if _ERROR_FILE not in os.environ:
        return False
    file = Path(os.environ[_ERROR_FILE])
    more = {"py_callstack": message, "timestamp": str(int(time.time()))}  # torchrun shows the first one
    facts = {"message": {"message": message, "extraInfo": more}, "status": USER_ERROR}
    try:
        file.write_text(json.dumps(facts), encoding="utf-8")
    except OSError:  # a full disk, say
        file.unlink(missing_ok=True)  # an empty file would be an error of its own
        return False
    return True


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


def log_notices(configs: Iterable[Config]) -> None:
    """Log once every key of these configs that is known but has no effect."""
    for notice in dict.fromkeys(notice for config in configs for notice in config.notices):
        get_log("config").info(notice)


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
            f"{folder}: cannot be made ({failure.strerror}); choose another by --out"
        ) from failure
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: nothing can be written there; choose another by --out")
    return folder
