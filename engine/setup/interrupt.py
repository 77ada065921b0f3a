"""Ctrl-C, SIGTERM and a closed terminal: a run records the request, and stops where it can be resumed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from threading import Thread
from types import FrameType, TracebackType
from typing import Any

import torch

from fewseg.util import distributed
from fewseg.util.errors import UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_ONE_REQUEST = 1.0
"""Seconds in which further signals count as the first one, since torchrun and shells may send it twice."""


Check = Callable[[], None]
"""Called regularly during long operations; may raise to stop them."""


def nothing(*_: object) -> None:
    """Do nothing; the default for functions that check or observe."""


class Interrupted(UserError):
    """The run stopped on request.

    Attributes:
        together: whether all processes stop at the same point.
    """

    together = False


class StopRequest:
    """A context in which the first Ctrl-C, SIGTERM or SIGHUP only requests a stop.

    A second Ctrl-C or SIGTERM after a second or more stops at once. Signals that were ignored before, such as
    SIGHUP under ``nohup``, stay ignored.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        handled = (number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN)
        self._before = {number: signal.signal(number, self._note) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise ``Interrupted`` if this process is asked to stop, ``ProcessLost`` if another has ended."""
        if self._received is not None:
            raise Interrupted(f"stopped by {self._received.name}")
        distributed.check_others()

    def check_together(self, wish: bool = False) -> bool:
        """Raise ``Interrupted`` in every process if any of them was asked to stop.

        Args:
            wish: a further flag, which the same communication combines over all processes.

        Returns:
            Whether ``wish`` is set in any process.
        """
        asked, wished = distributed.all_sum(torch.tensor([self._received is not None, wish]).int()).tolist()
        if asked:
            stop = Interrupted(f"stopped by {self._received.name if self._received else 'another process'}")
            stop.together = True
            raise stop
        return bool(wished)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received, self._since = signal.Signals(number), time.monotonic()
        elif number != signal.SIGHUP and time.monotonic() - self._since > _ONE_REQUEST:
            raise KeyboardInterrupt


def leave_signals_to_run(worker: int) -> None:
    """Let a loader's worker ignore signals that are sent to the whole run.

    Ctrl-C and torchrun signal the process group, and a cluster's scheduler sends SIGTERM to every process.
    The death of a worker would end the run before its snapshot. The run can still end its workers: they obey
    a SIGTERM that it sends.
    """
    os.setpgrp()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=_end_with_run, daemon=True).start()


def _end_with_run() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
