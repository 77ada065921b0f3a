"""The session of a test: where its counts are kept, what may stop it, and who is told how far it is."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fewseg.dataset.loading.evaluation import PlannedEpisode
from fewseg.engine.evaluation.tally import Observe, Tally
from fewseg.engine.setup.interrupt import Check, nothing
from fewseg.model.contract import Prediction
from fewseg.util.distributed import world_size
from fewseg.util.live import Live
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.identity import measurement_key
from fewseg.util.results.partial_counts import PartialCounts
from fewseg.util.results.result import Result


class Session:
    """What the tests of one script share.

    Args:
        folder: folder of the results, which keeps the counts until a test has ended; None: they are not kept.
        check: called regularly; may raise to stop the test.
        live: is told the progress.

    Attributes:
        check: as given.
    """

    def __init__(
        self, folder: ResultFolder | None = None, check: Check = nothing, live: Live | None = None
    ) -> None:
        self.check = check
        self._folder, self._live = folder, live
        self._done = self._episodes = self._own = 0
        self._begun = time.perf_counter()

    def kept(self, result: Result, beside: Result | None = None) -> PartialCounts | None:
        """Return where the counts of a test are kept until it has ended.

        Args:
            result: result of the test; it needs no metrics.
            beside: result after whose file the place is named, by default ``result``.
        """
        if self._folder is None:
            return None
        place = self._folder.partial_of(self._folder.file_of(beside or result))
        return PartialCounts(place, measurement_key(result))

    def forget(self, results: Sequence[Result]) -> None:
        """Remove the kept counts of the first result's test, of which ``results`` have been written."""
        for result in results:
            kept = self.kept(result, beside=results[0])
            if kept is not None:
                kept.remove()

    def begin(self, tallies: Sequence[Tally]) -> None:
        """Begin to count the episodes of ``tallies``."""
        self._episodes = sum(tally.size for tally in tallies)
        self._done, self._own = sum(tally.size - tally.left for tally in tallies), 0
        self._begun = time.perf_counter()

    def watch(self, observe: Observe = nothing) -> Observe:
        """Return ``observe`` extended by telling the progress."""

        def watched(planned: PlannedEpisode, prediction: Prediction) -> None:
            observe(planned, prediction)
            self._own += 1
            counted = self._own * world_size()  # the others are about as fast
            if self._live is not None:
                self._live.show(
                    work="testing",
                    episode=min(self._done + counted, self._episodes),
                    episodes=self._episodes,
                    seconds_an_episode=(time.perf_counter() - self._begun) / counted,
                )

        return watched
