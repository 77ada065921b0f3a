"""Ctrl-C and SIGTERM: a run notes the wish to stop, and stops where it can be resumed."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

import torch

from util import distributed
from util.errors import UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(UserError):
    """The run was asked to stop, and did."""


class StopRequest:
    """While entered, turns the first Ctrl-C or SIGTERM into a request; a second one stops at once."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise ``Interrupted`` if this process was asked to stop."""
        if self._received is not None:
            raise Interrupted(f"stopped by {self._received.name}")

    def check_together(self) -> None:
        """Raise ``Interrupted`` in every process if any of them was asked to stop."""
        if distributed.all_sum(torch.tensor(int(self._received is not None))):
            raise Interrupted(f"stopped by {self._received.name if self._received else 'another process'}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = signal.Signals(number)


def leave_process_group(worker: int) -> None:
    """Keep a loader's worker out of the reach of signals that are meant for the whole run.

    Ctrl-C and torchrun signal the process group; a worker that died of it would take the run down before its
    snapshot. The run still ends its workers one by one.
    """
    os.setpgrp()
