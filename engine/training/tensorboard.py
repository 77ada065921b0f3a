"""TensorBoard: losses, learning rates, scores and pictures of a training run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewseg.util import distributed
from fewseg.util.log import get_log

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter

_FLUSH_SECONDS = 20.0
"""Seconds after which new values are written to the file."""


class TensorBoardWriter:
    """Writes an event file below ``folder`` in the main process, and nothing in the others.

    Every start of a run has one file, created with the first value. A resumed run hides what an earlier start
    wrote at ``first_step`` and later. If the file cannot be written, the curves end with a warning and the
    run continues. The ``SummaryWriter`` of tensorboardX is not used: it writes from a thread, which dies when
    the disk is full, and the run would wait for it for ever.

    Args:
        folder: folder of the event files.
        first_step: first step of this start.
    """

    def __init__(self, folder: str | Path, first_step: int = 1) -> None:
        self._folder, self._first_step = Path(folder), first_step
        self._writer: RecordWriter | None = None
        self._failed = not distributed.is_main()
        self._flushed = 0.0

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write ``values`` as ``group/name``."""
        if not self._failed:
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.summary import scalar

            named = (scalar(f"{group}/{name}", value) for name, value in values.items())
            self._write([Event(step=step, summary=summary) for summary in named])

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Write an RGB picture, uint8 [H,W,3]."""
        if not self._failed:
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.summary import image

            self._write([Event(step=step, summary=image(name, picture, dataformats="HWC"))])

    def flush(self) -> None:
        """Write all values to the file, so that they are kept however the process ends."""
        if self._writer is not None:
            self._write([], now=True)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as failure:
                self._give_up(failure)

    def _write(self, events: list[Event], *, now: bool = False) -> None:
        try:
            if self._writer is None:
                self._writer, first = self._begin()
                events = [*first, *events]
            for event in events:
                event.wall_time = time.time()
                self._writer.write(event.SerializeToString())
            if now or time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as failure:
            self._give_up(failure)

    def _begin(self) -> tuple[RecordWriter, list[Event]]:
        """Open the file, and return it with its first events."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        writer = RecordWriter(str(self._folder / name))
        first = [Event(file_version="brain.Event:2")]
        if self._first_step > 1:
            first.append(Event(step=self._first_step, session_log=SessionLog(status=SessionLog.START)))
        return writer, first

    def _give_up(self, failure: OSError) -> None:
        self._failed = True
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            self._writer = None
        get_log("train").warning(
            "%s: the curves end here (%s); the run goes on", self._folder, failure.strerror or failure
        )
