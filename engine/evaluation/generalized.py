"""Generalised few-shot segmentation: base classes and a novel class in one map (BAM, section 4.5).

The predictions of few-shot model and base learner are merged at the label's size, without training, in one of
two ways: pixels that both assign a class get the novel class under ``final``, the base class under ``base``.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.engine.evaluation.measure import Measurement, Run, on_device, open_run
from fewseg.engine.evaluation.outcome import counts_of
from fewseg.engine.evaluation.scores import Scores
from fewseg.model.contract import Prediction
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError
from fewseg.util.metrics import Counts, IoUMeter, intersection_union_target, merge_generalised, resize_logits
from fewseg.util.results.result import Result

MERGES = ("final", "base")


class GeneralizedScores(Scores):
    """The counts of one seed under both merges; the metrics are those of the chosen ``merge``.

    Args:
        fold: the fold, with its classes and protocol.
        manifest: the episodes of the seed.
        merge_tau: a pixel is of the novel class where its probability exceeds this.
    """

    merge = MERGES[0]

    def __init__(self, fold: Fold, manifest: Manifest, merge_tau: float) -> None:
        super().__init__(fold, manifest)
        self.merge_tau = merge_tau
        self.first_novel = 1 + len(fold.classes.base)
        classes = self.first_novel + len(fold.classes.novel)
        self.merged = {merge: IoUMeter(classes) for merge in MERGES}
        shape = len(manifest), 1 + self.first_novel, 3
        self.merged_episodes = {merge: torch.zeros(shape, dtype=torch.int64) for merge in MERGES}
        self.choose(self.merge)

    def choose(self, merge: str) -> None:
        """Choose the merge whose metrics and counts are returned."""
        self.merge = merge
        self.meters = {"final": self.merged[merge]}
        self.episodes = {"final": self.merged_episodes[merge]}

    def rows(self, index: int) -> list[int]:
        """Return the meters' rows for background, base classes and the novel class of an episode."""
        (class_id,) = self.manifest[index].class_ids
        return [*range(self.first_novel), self.first_novel + self.fold.classes.novel.index(class_id)]

    def add(self, index: int, prediction: Prediction, label: np.ndarray) -> None:
        """Count both merges against a query's label of dataset ids, [H,W]."""
        table = self.fold.classes.base_table.copy()
        table[self.manifest[index].class_ids[0]] = self.first_novel
        target = self.target(label, table)
        corners = self.fold.protocol.align_corners
        final, base = (
            resize_logits(self.without_padding(logits, target), target.shape, align_corners=corners)
            for logits in (prediction.logits, prediction.parts["base"])
        )
        for merge in MERGES:
            merged = merge_generalised(final, base, merge, self.merge_tau)[0].cpu()
            counts = intersection_union_target(merged, target, self.first_novel + 1)
            self.merged_episodes[merge][index] = torch.stack(counts, dim=1)
            self.merged[merge].add(counts, self.rows(index))

    def count_base(self, prediction: Prediction, label: np.ndarray) -> Counts | None:
        """Return None: the base learner's prediction is part of the merged one."""
        return None

    def sum_over_processes(self) -> None:
        """Add the counts of the other processes, under both merges."""
        for merge in MERGES:
            self.choose(merge)
            super().sum_over_processes()
            self.merged_episodes[merge] = self.episodes["final"]
        self.choose(MERGES[0])

    def metrics(self) -> dict[str, float]:
        """Return the mean IoU of novel, base and all classes, and FB-IoU, as fractions."""
        meter = self.meters["final"]
        parts = {"n": slice(self.first_novel, None), "b": slice(1, self.first_novel), "t": slice(1, None)}
        present_only = self.fold.protocol.leaves_absent_out
        means = {
            f"mIoU_{name}": meter.mean_iou(classes, present_only=present_only)
            for name, classes in parts.items()
        }
        return means | {"FB-IoU": meter.foreground_background_iou()}

    def class_iou(self) -> dict[str, float | None]:
        """Return the IoU of every base and every novel class by its name; None where no query shows it."""
        split = self.fold.classes
        names = map(split.label, (*split.base, *split.novel))
        return dict(zip(names, self.meters["final"].class_iou_if_tested()[1:], strict=True))


def expected_generalized(run: Run) -> list[Result]:
    """Return the results of a test run before the test, without metrics: one per merge.

    Raises:
        ConfigError: the model has no base learner, or episodes have several ways.
    """
    if run.config.Data.ways > 1:
        raise ConfigError("generalized: an episode asks for one novel class; set ways 1")
    if not run.model.holds_base_learner:
        raise ConfigError(
            f"generalized: {run.config.Method.arch} has no base learner to segment the base classes; "
            "test a method with one, such as bam"
        )
    return [run.result(setting=f"generalised-{merge}") for merge in MERGES]


def measure_generalized(config: Config, device: torch.device) -> list[Measurement]:
    """Test the model that ``config`` names on base and novel classes together: one measurement per merge.

    Raises:
        ConfigError: see ``expected_generalized``.
    """
    run = open_run(config)
    expected_generalized(run)
    make = partial(GeneralizedScores, merge_tau=config.Method.merge_tau)
    scores = run.evaluate(on_device(run.model, device), scores_of=make)
    measurements = []
    for merge in MERGES:
        for score in scores:
            assert isinstance(score, GeneralizedScores)  # as scores_of makes them
            score.choose(merge)
        result = run.result(scores, setting=f"generalised-{merge}")
        measurements.append(Measurement(result, (), {}, counts_of(scores)))
    return measurements
