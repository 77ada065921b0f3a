"""The pace of a training: the time that its steps take, with the wait for their data, and their loss."""

from __future__ import annotations

import statistics
import time
from array import array
from collections import deque
from collections.abc import Sequence

_RECENT = 20
"""The number of steps that recent values are the mean of."""


class Pace:
    """Measures the seconds of steps from the end of one to the end of the next, and keeps the last losses.

    A GPU works on steps that the host has long left behind, so only steps that the host has waited for can be
    timed: several of them have their mean each. ``begin`` starts the clock anew after something that is no
    part of a step, such as a validation.
    """

    def __init__(self) -> None:
        self._seconds = array("d")
        self._losses: deque[float] = deque(maxlen=_RECENT)
        self._since = time.perf_counter()

    def begin(self) -> None:
        """Start the clock of the next step."""
        self._since = time.perf_counter()

    def steps(self, losses: Sequence[float]) -> None:
        """Note the end of the steps since the last call, and the loss of each."""
        now = time.perf_counter()
        self._seconds.extend([(now - self._since) / len(losses)] * len(losses))
        self._since = now
        self._losses.extend(losses)

    def median(self) -> float | None:
        """Return the median over all steps, in seconds; None without a step."""
        return statistics.median(self._seconds) if self._seconds else None

    def recent(self) -> dict[str, float]:
        """Return the means over the last steps, ``seconds_a_step`` and ``loss``; nothing without a step."""
        if not self._seconds:
            return {}
        means = statistics.fmean(self._seconds[-_RECENT:]), statistics.fmean(self._losses)
        return dict(zip(("seconds_a_step", "loss"), means, strict=True))
