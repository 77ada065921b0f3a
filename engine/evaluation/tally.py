"""The tally of a test: it counts the predictions, and keeps the counts so that a killed test goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from fewseg.dataset.episodes.sampling import generator
from fewseg.dataset.loading.evaluation import EpisodeSet, PlannedEpisode
from fewseg.engine.evaluation.scores import MakeScores, PartCounts, Scores
from fewseg.engine.setup.interrupt import nothing
from fewseg.model.contract import Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.util import distributed
from fewseg.util.device import to_host
from fewseg.util.log import get_log
from fewseg.util.results.partial_counts import PartialCounts
from fewseg.util.seed import seed_draws

Observe = Callable[[PlannedEpisode, Prediction], None]
"""Is called with every episode and its prediction, in the process that made the prediction."""

Pictures = dict[str, np.ndarray]
"""Name -> RGB picture, uint8 [H,W,3]."""

_PICTURE, _SECONDS = "picture ", "seconds"


class Task(NamedTuple):
    """A model, and the tally of the episodes that it segments."""

    model: FewShotModel
    tally: Tally


class Counted(NamedTuple):
    """Episodes of one query and the counts of their predictions, on the predictions' device."""

    episodes: Sequence[PlannedEpisode]
    counts: PartCounts


class Tally:
    """Counts the predictions for a set of episodes.

    Args:
        episodes: the episodes of all processes.
        scores_of: creates the scores that count the predictions of a manifest.
        observe: called with every prediction.
        kept: where the counts are kept until the test has ended; None: nowhere.
        pictures: the pictures that ``observe`` draws, which are kept too.

    Attributes:
        seconds: duration of the evaluation, including that of a killed test from which it goes on.
    """

    def __init__(
        self,
        episodes: EpisodeSet,
        scores_of: MakeScores = Scores,
        observe: Observe = nothing,
        kept: PartialCounts | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        self.episodes, self._observe, self._kept = episodes, observe, kept
        self._scores = [scores_of(episodes.fold, manifest) for manifest in episodes.manifests]
        self._pictures = {} if pictures is None else pictures
        self.seconds = 0.0
        self._since, self._share = time.perf_counter(), 0.0
        self._base: PartCounts = {}
        self._label: np.ndarray | None = None
        if kept is not None and distributed.is_main():
            self._restore(kept)
        done = [score.done.clone() for score in self._scores]
        self._done = done if kept is None else distributed.from_main(done)

    @property
    def size(self) -> int:
        """Number of episodes."""
        return sum(len(score.manifest) for score in self._scores)

    @property
    def left(self) -> int:
        """Number of episodes that had not been counted at the beginning."""
        return self.size - sum(int(done.sum()) for done in self._done)

    def pending(self, groups: Iterable[Sequence[PlannedEpisode]]) -> list[Sequence[PlannedEpisode]]:
        """Return the groups of episodes that have not been counted as a whole.

        All processes get the same groups. Where some episodes of a group have been counted, they are counted
        again, so that a group is always decoded in the same batches.
        """
        pending = [group for group in groups if not all(map(self._is_done, group))]
        for group in pending:
            for planned in group:
                self._scores[planned.manifest_index].forget(planned.episode_index)
        return pending

    def seed(self, planned: PlannedEpisode, device: torch.device) -> None:
        """Make the random draws of an episode's prediction depend on its manifest and number alone."""
        seed_episode(self.episodes, planned, device)

    def add(
        self, batch: Sequence[PlannedEpisode], prediction: Prediction, labels: Sequence[np.ndarray]
    ) -> None:
        """Count and store the predictions of a batch; see ``count`` and ``store``."""
        self.store(self.count(batch, prediction, labels))

    def count(
        self, batch: Sequence[PlannedEpisode], prediction: Prediction, labels: Sequence[np.ndarray]
    ) -> list[Counted]:
        """Count the predictions of a batch on their device, and let them be observed.

        Args:
            batch: the episodes; those of a query follow each other.
            prediction: their predictions, first axis the episodes.
            labels: their queries' labels, see ``Fold.scored_label``; those of one query are one object.
        """
        counted = []
        for first, end in _runs(labels):
            own, part = batch[first:end], _cut(prediction, slice(first, end))
            if labels[first] is not self._label:  # the next query
                self._base, self._label = self._scores[0].count_base(part, labels[first]), labels[first]
            specs = [planned.spec for planned in own]
            counts = self._scores[0].count(specs, part, labels[first])
            counted.append(Counted(own, {**counts, **self._base}))
        for index, planned in enumerate(batch):
            self._observe(planned, _cut(prediction, slice(index, index + 1)))
        return counted

    def store(self, counted: Sequence[Counted]) -> None:
        """Store what was counted; the host waits once for the device."""
        copies = iter(to_host([counts for batch in counted for counts in batch.counts.values()]))
        for episodes, counts in counted:
            own = {part: next(copies) for part in counts}
            for row, planned in enumerate(episodes):
                score = self._scores[planned.manifest_index]
                of_one = {part: rows[row : row + 1] if len(rows) > 1 else rows for part, rows in own.items()}
                score.store([planned.episode_index], of_one)
                score.done[planned.episode_index] = True
        if self._kept is not None and self._kept.due():
            self._keep(self._kept)

    @contextmanager
    def keeping(self, tasks: int = 1) -> Iterator[None]:
        """A context for the evaluation, at whose end the counts are written, however it ends.

        Args:
            tasks: number of tasks that are evaluated together, which share the time.
        """
        self._since, self._share = time.perf_counter(), 1 / tasks
        try:
            yield
        finally:
            if self._kept is not None:
                self._keep(self._kept)
            self._count_time()

    def total(self) -> list[Scores]:
        """Return the scores of every manifest, summed over all processes."""
        for score in self._scores:
            score.sum_over_processes()
        return self._scores

    def _is_done(self, planned: PlannedEpisode) -> bool:
        return bool(self._done[planned.manifest_index][planned.episode_index])

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.seconds += self._share * (now - self._since)
        self._since = now

    def _keep(self, kept: PartialCounts) -> None:
        self._count_time()
        kept.write(self._state())

    def _state(self) -> dict[str, np.ndarray]:
        counts = {
            f"{number} {name}": array
            for number, score in enumerate(self._scores)
            for name, array in score.state().items()
        }
        pictures = {f"{_PICTURE}{name}": picture for name, picture in self._pictures.items()}
        return {**counts, **pictures, _SECONDS: np.array(self.seconds)}

    def _restore(self, kept: PartialCounts) -> None:
        """Take over what all processes of a killed test have kept."""
        for part in kept.read():
            try:
                self._take_over(part)
            except (KeyError, IndexError, TypeError, RuntimeError) as failure:
                get_log("test").warning("%s: counts of another test are left out (%s)", kept.folder, failure)
        done = sum(int(score.done.sum()) for score in self._scores)
        if done:
            kept.replace_all(self._state())
            get_log("test").info("going on after %d of %d episodes; see %s", done, self.size, kept.folder)

    def _take_over(self, part: Mapping[str, np.ndarray]) -> None:
        for number, score in enumerate(self._scores):
            own = f"{number} "
            score.restore({name.removeprefix(own): part[name] for name in part if name.startswith(own)})
        drawn = (name for name in part if name.startswith(_PICTURE))
        self._pictures.update({name.removeprefix(_PICTURE): part[name] for name in drawn})
        self.seconds = max(self.seconds, float(part[_SECONDS]))


def seed_episode(episodes: EpisodeSet, planned: PlannedEpisode, device: torch.device) -> None:
    """Make the random draws of an episode's prediction depend on its manifest and number alone."""
    manifest = episodes.manifests[planned.manifest_index]
    rng = generator("evaluation", manifest.seed, planned.episode_index)
    seed_draws(rng.getrandbits(63), device)


def _runs(labels: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Yield first and end position of the episodes that share a label."""
    starts = [i for i, label in enumerate(labels) if i == 0 or label is not labels[i - 1]]
    yield from zip(starts, [*starts[1:], len(labels)], strict=True)


def _cut(prediction: Prediction, rows: slice) -> Prediction:
    """Return a part of a batch of predictions."""
    parts = {name: part[rows] for name, part in prediction.parts.items()}
    return Prediction(prediction.logits[rows], parts)
