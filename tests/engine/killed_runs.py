"""Runs in processes of their own, which are killed at random moments, and what they were doing then."""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import Any

from fewseg.engine.training.finished import Finished
from fewseg.engine.training.loop import TrainingLoop
from fewseg.engine.training.saving import Snapshots

PHASES = ("start or end", "between steps", "step", "validation", "writing")
ELSEWHERE, BETWEEN, STEP, VALIDATION, WRITING = range(5)

KILLS = "killed runs"
"""The property of a test's report: how many ends were compared, and phase -> how many kills fell into it."""

_WATCHED = {
    BETWEEN: [(TrainingLoop, "run")],
    STEP: [(TrainingLoop, "_step")],
    VALIDATION: [(TrainingLoop, "_validate")],
    WRITING: [(Finished, "write"), *((Snapshots, name) for name in ("begin", "save_last", "save_best"))],
}
"""Phase -> the functions during which a run is in it; the innermost one counts."""

_LONGEST = 300.0


@dataclass(frozen=True)
class Moment:
    """The moment of a kill.

    Attributes:
        delay: seconds after the start of the process, or of the phase.
        phase, number: the phase, and how many of its kind begin before; None: any moment.
    """

    delay: float
    phase: int | None = None
    number: int = 0


@dataclass
class Watched:
    """A run in a process of its own, and the memory by which that process tells what it is doing.

    Attributes:
        work: the run. A fork saves the seconds of loading torch.
        seconds: of the whole process, where it ended by itself.
        counts, lengths: by phase, how often it began, and the seconds of all of them.
    """

    work: Callable[[], object]
    seconds: float = 0.0
    counts: Any = field(default_factory=lambda: RawArray("i", len(PHASES)))
    lengths: Any = field(default_factory=lambda: RawArray("d", len(PHASES)))
    _now: Any = field(default_factory=lambda: RawValue("i", ELSEWHERE))

    def finish(self) -> None:
        """Run to the end."""
        assert self.kill(Moment(_LONGEST)) is None

    def kill(self, moment: Moment) -> int | None:
        """Run, and kill with SIGKILL at a moment; return the phase it was in, None where it had ended."""
        hears, tells = os.pipe()
        begin = time.monotonic()
        child = os.fork()
        if not child:
            self._run(moment, tells)
        os.close(tells)
        try:
            wait = _LONGEST if moment.phase is not None else moment.delay
            heard = select.select([hears], [], [], wait)[0] and os.read(hears, 1)
            if moment.phase is not None and heard:
                time.sleep(moment.delay)
        finally:
            os.close(hears)
        if heard != b"":  # its end would have closed the pipe
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.seconds = time.monotonic() - begin
        assert status in (0, -signal.SIGKILL)
        return None if status == 0 else self._now.value

    def any_moment(self, draw: random.Random) -> Moment:
        """Draw a moment of a run as long as this one: of the whole of it, or of one of its phases."""
        phase = draw.choice((None, None, STEP, VALIDATION, WRITING, WRITING))
        if phase is None:
            return Moment(draw.uniform(0, self.seconds))
        mean = self.lengths[phase] / self.counts[phase]
        return Moment(draw.uniform(0, mean), phase, draw.randrange(self.counts[phase]))

    def _run(self, moment: Moment, tells: int) -> None:
        status = 1
        try:
            os.setsid()
            for phase, functions in _WATCHED.items():
                for owner, name in functions:
                    setattr(owner, name, self._watched(phase, getattr(owner, name), moment, tells))
            self.work()
            status = 0
        except Exception as failure:
            sys.stderr.write(f"{type(failure).__name__}: {failure}\n")
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _watched(
        self, phase: int, function: Callable[..., Any], moment: Moment, tells: int
    ) -> Callable[..., Any]:
        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            outer, self._now.value = self._now.value, phase
            if (phase, self.counts[phase]) == (moment.phase, moment.number):
                os.write(tells, b"!")
            self.counts[phase] += 1
            begin = time.monotonic()
            try:
                return function(*arguments, **options)
            finally:
                self.lengths[phase] += time.monotonic() - begin
                self._now.value = outer

        return watched
