"""The pace of a training: the time that its steps take, with the wait for their data, and their loss."""

from __future__ import annotations

import statistics
import time
from array import array
from collections import deque

_RECENT = 20
"""The number of steps that recent values are the mean of."""


class Pace:
    """Measures the seconds from the end of one step to the end of the next, and keeps the last losses.

    ``begin`` starts the clock anew after something that is no part of a step, such as a validation.
    """

    def __init__(self) -> None:
        self._seconds = array("d")
        self._losses: deque[float] = deque(maxlen=_RECENT)
        self._since = time.perf_counter()

    def begin(self) -> None:
        """Start the clock of the next step."""
        self._since = time.perf_counter()

    def step(self, loss: float) -> None:
        """Note the end of a step and its loss."""
        now = time.perf_counter()
        self._seconds.append(now - self._since)
        self._since = now
        self._losses.append(loss)

    def median(self) -> float | None:
        """Return the median over all steps, in seconds; None without a step."""
        return statistics.median(self._seconds) if self._seconds else None

    def recent(self) -> dict[str, float]:
        """Return the means over the last steps, ``seconds_a_step`` and ``loss``; nothing without a step."""
        if not self._seconds:
            return {}
        means = statistics.fmean(self._seconds[-_RECENT:]), statistics.fmean(self._losses)
        return dict(zip(("seconds_a_step", "loss"), means, strict=True))
