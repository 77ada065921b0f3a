"""The scores of a model that is adapted to each episode in rounds: of what it returns, and of every round."""

from __future__ import annotations

import numpy as np
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.reading.transform import class_table
from fewseg.engine.evaluation.scores import Scores
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

    def add(self, index: int, prediction: Prediction, label: np.ndarray) -> None:
        """Count the predictions of an episode against its query's label of dataset ids, [H,W]."""
        super().add(index, prediction, label)
        target = self.target(label, class_table(self.manifest[index].class_ids))
        for number, part in enumerate(self._rounds):
            logits = prediction.parts[ROUND_LOGITS][:, number]
            self.add_counts(part, index, self.count(logits, target))
        self.episodes[CHOSEN][index, int(prediction.parts[CHOSEN_ROUND])] = 1

    def by_round(self) -> tuple[RoundResult, ...]:
        """Return the figures of every round, the unadapted model's first."""
        chosen = self.episodes[CHOSEN].sum((0, 2)).tolist()
        return tuple(
            RoundResult(metrics=self._novel_metrics(part, ""), chosen=number)
            for part, number in zip(self._rounds, chosen, strict=True)
        )
