"""The time that the steps of a training take, with the wait for their data."""

from __future__ import annotations

import statistics
import time
from array import array

_RECENT = 20
"""The number of steps that the recent pace is the mean of."""


class Pace:
    """Measures the seconds from the end of one step to the end of the next.

    ``begin`` starts the clock anew after something that is no part of a step, such as a validation.
    """

    def __init__(self) -> None:
        self._seconds = array("d")
        self._since = time.perf_counter()

    def begin(self) -> None:
        """Start the clock of the next step."""
        self._since = time.perf_counter()

    def step(self) -> None:
        """Note the end of a step."""
        now = time.perf_counter()
        self._seconds.append(now - self._since)
        self._since = now

    def median(self) -> float | None:
        """Return the median over all steps, in seconds; None without a step."""
        return statistics.median(self._seconds) if self._seconds else None

    def recent(self) -> float | None:
        """Return the mean over the last steps, in seconds; None without a step."""
        return statistics.fmean(self._seconds[-_RECENT:]) if self._seconds else None
