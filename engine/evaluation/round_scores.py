"""The scores of a model that is adapted to each episode in rounds: of what it returns, and of every round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.episodes.sampling import EpisodeSpec
from fewseg.engine.evaluation.scores import PartCounts, Scores
from fewseg.model.contract import Prediction
from fewseg.model.encoding import CHOSEN_ROUND, ROUND_LOGITS
from fewseg.util.results.result import RoundResult

CHOSEN = "chosen round"
"""Key of the choices among the counts, which are kept and summed like these."""


class RoundScores(Scores):
    """The counts of one seed: as ``Scores``, and those that the prediction of every round would have.

    The truth is compared with predictions that are made already; no choice depends on it.

    Args:
        fold: the fold, with its classes and protocol.
        manifest: the episodes of the seed.
        rounds: number of rounds of the adaptation; the unadapted model's prediction is counted as round 0.
    """

    def __init__(self, fold: Fold, manifest: Manifest, rounds: int) -> None:
        super().__init__(fold, manifest)
        self._rounds = [f"round {number}" for number in range(rounds + 1)]
        for part in self._rounds:
            self.classes[part] = self.classes["final"]
            self.episodes[part] = self._no_counts(1 + manifest.ways)
        self.episodes[CHOSEN] = torch.zeros(len(manifest), rounds + 1, 1, dtype=torch.int64)

    def count(self, specs: Sequence[EpisodeSpec], prediction: Prediction, label: np.ndarray) -> PartCounts:
        """Count the predictions for B episodes of one query, and those of every round; see ``Scores``."""
        rounds, chosen = prediction.parts[ROUND_LOGITS], prediction.parts[CHOSEN_ROUND]
        counts = super().count(specs, prediction, label)
        for number, part in enumerate(self._rounds):
            counts[part] = super().count(specs, Prediction(rounds[:, number]), label)["final"]
        numbers = torch.arange(len(self._rounds), device=chosen.device)
        counts[CHOSEN] = (chosen[:, None] == numbers).long()[..., None]
        return counts

    def by_round(self) -> tuple[RoundResult, ...]:
        """Return the figures of every round, the unadapted model's first."""
        chosen = self.episodes[CHOSEN].sum((0, 2)).tolist()
        return tuple(
            RoundResult(metrics=self._novel_metrics(part, ""), chosen=number)
            for part, number in zip(self._rounds, chosen, strict=True)
        )
