"""Start a script in several processes as torchrun does, and end as the script alone would.

The error is one line, the last one, and the exit status is the script's.

    python tools/launch.py --nproc-per-node 4 train.py --config config/pascal/bam_resnet50.yaml

The arguments are torchrun's. torchrun itself ends with a long report and always with exit status 1.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from fewseg.engine.setup.script import LAUNCHED, STOPPED
from fewseg.util.peers import LOST


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return the exit status of the process that failed first, 0 if none did."""
    os.environ[LAUNCHED] = "1"  # tells the processes that this one prints their errors
    logging.disable(logging.CRITICAL)  # disables torchrun's own report; the processes log as usual
    try:
        run.run(run.parse_args(arguments))
    except ChildFailedError as failed:
        number, failure = _first(failed.failures)
        status = _status(failure)
        if status != STOPPED:
            print(f"error: {_reason(number, failure)}", file=sys.stderr)
        return status if status > 0 else 128 - status
    except SignalException:  # the processes have been told, and have said how to go on
        return STOPPED
    return 0


def _first(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the failure that led to the others: one that no other caused, or of several an explained one."""

    def order(numbered: tuple[int, ProcessFailure]) -> tuple[bool, bool, int]:
        failure = numbered[1]
        follows = _status(failure) in (-signal.SIGTERM, LOST)
        return follows, not os.path.isfile(failure.error_file), failure.timestamp

    return min(failures.items(), key=order)


def _status(failure: ProcessFailure) -> int:
    """Return the status of a process, which torchrun may have ended after it had reported its error."""
    return failure.error_file_data.get("status", failure.exitcode)


def _reason(number: int, failure: ProcessFailure) -> str:
    if os.path.isfile(failure.error_file):
        return str(failure.error_file_data["message"]["message"])
    status = failure.exitcode
    if status < 0:
        return f"process {number} was ended by {failure.signal_name()}"
    return f"process {number} ended with status {status}; the reason stands above or on another machine"


if __name__ == "__main__":
    sys.exit(main())
