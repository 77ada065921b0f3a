"""The scores of predictions: integer counts per class, summed over the episodes of a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.labels import VOID
from fewseg.dataset.loading.evaluation import EpisodeSet, PlannedEpisode
from fewseg.dataset.reading.transform import class_table, look_up
from fewseg.engine.setup.interrupt import nothing
from fewseg.model.contract import Prediction
from fewseg.util.distributed import all_sum
from fewseg.util.metrics import Counts, IoUMeter, count_logits

HEADLINE = "mIoU"
"""The metric that selects snapshots and fills tables."""


class Scores:
    """The counts of one seed, for three parts: the final prediction, the meta-learner and the base learner.

    Args:
        fold: the fold, with its classes and protocol.
        manifest: the episodes of the seed.

    Attributes:
        meters: part -> sums over all episodes.
        episodes: part -> counts of every episode, int64 [episodes, 1 + ways, 3].
        first_novel: first row of the meters that counts a novel class.
    """

    first_novel = 1

    def __init__(self, fold: Fold, manifest: Manifest) -> None:
        self.fold, self.manifest = fold, manifest
        novel, base = 1 + len(fold.classes.novel), 1 + len(fold.classes.base)
        self.meters = {"final": IoUMeter(novel), "meta": IoUMeter(novel), "base": IoUMeter(base)}
        shape = len(manifest), 1 + manifest.ways, 3
        self.episodes = {part: torch.zeros(shape, dtype=torch.int64) for part in ("final", "meta")}

    def rows(self, index: int) -> list[int]:
        """Return the rows of the meters for background and classes of an episode."""
        novel = self.fold.classes.novel
        return [0, *(1 + novel.index(class_id) for class_id in self.manifest[index].class_ids)]

    def add(self, index: int, prediction: Prediction, label: np.ndarray) -> None:
        """Count the prediction of an episode against its query's label of dataset ids, [H,W]."""
        spec = self.manifest[index]
        target = self.target(label, class_table(spec.class_ids))
        self.add_counts("final", index, self.count(prediction.logits, target))
        if "meta" in prediction.parts and len(spec.class_ids) == 1:
            self.add_counts("meta", index, self.count(prediction.parts["meta"], target))

    def add_counts(self, part: str, index: int, counts: Counts) -> None:
        """Add the counts of an episode to the sums of a part."""
        if not self.fold.protocol.count_absent:
            counts = counts.where_labelled()
        classes = len(counts.union)  # a baseline predicts only the first way
        self.episodes[part][index, :classes] = torch.stack(counts, dim=1)
        self.meters[part].add(counts, self.rows(index)[:classes])

    def count_base(self, prediction: Prediction, label: np.ndarray) -> Counts | None:
        """Count the base learner's prediction, which is the same in every episode of a query."""
        if "base" not in prediction.parts:
            return None
        return self.count(prediction.parts["base"], self.target(label, self.fold.classes.base_table))

    def add_base(self, counts: Counts | None, times: int = 1) -> None:
        """Add a query's base counts once for each of its episodes."""
        if counts is not None:
            self.meters["base"].add(Counts(*(times * count for count in counts)))

    def sum_over_processes(self) -> None:
        """Add the counts of the other processes."""
        for meter in self.meters.values():
            meter.counts = all_sum(meter.counts)
        self.episodes = {part: all_sum(counts) for part, counts in self.episodes.items()}

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name, as fractions."""
        metrics = self._novel_metrics("final", "")
        if self.counted("meta"):
            metrics |= self._novel_metrics("meta", "_meta")
        if self.counted("base"):
            metrics["mIoU_base"] = self.meters["base"].mean_iou(present_only=True)
        return metrics

    def class_iou(self) -> dict[str, float | None]:
        """Return the IoU of every novel class by its name; None for a class that no query shows."""
        names = map(self.fold.classes.label, self.fold.classes.novel)
        return dict(zip(names, self.meters["final"].class_iou_if_tested()[1:], strict=True))

    def _novel_metrics(self, part: str, suffix: str) -> dict[str, float]:
        meter, protocol = self.meters[part], self.fold.protocol
        mean = meter.mean_iou(present_only=protocol.leaves_absent_out)
        metrics = {f"{HEADLINE}{suffix}": mean}
        if protocol.fb_iou:
            metrics[f"FB-IoU{suffix}"] = meter.foreground_background_iou()
        return metrics | {f"pIoU{suffix}": meter.pooled_iou()}

    def target(self, label: np.ndarray, table: np.ndarray) -> Tensor:
        """Map a query's label of dataset ids to the target that predictions are compared with."""
        target = look_up(label, table)
        if not self.fold.protocol.ignore:
            target[target == VOID] = 0
        return target

    def count(self, logits: Tensor, target: Tensor) -> Counts:
        """Upsample logits [1,C,h,w] to the size of a target [H,W] and count."""
        return count_logits(
            self.without_padding(logits, target), target, align_corners=self.fold.protocol.align_corners
        )

    def without_padding(self, logits: Tensor, target: Tensor) -> Tensor:
        """Crop the part of the logits that is padding, if the target has no padding."""
        protocol = self.fold.protocol
        if protocol.label_size != "original" or protocol.resize not in ("letterbox", "shrink"):
            return logits
        rows, columns = self.fold.resize.content(*target.shape)
        return logits[..., :rows, :columns]

    def counted(self, part: str) -> bool:
        """Return whether anything has been counted for a part."""
        return part in self.meters and bool(torch.any(self.meters[part].counts))


MakeScores = Callable[[Fold, Manifest], Scores]

Predicted = tuple[PlannedEpisode, Prediction, np.ndarray]
"""An episode, its prediction as a batch of one, and its query's label, see ``Fold.scored_label``."""

Observe = Callable[[PlannedEpisode, Prediction], None]
"""Is called with every episode and its prediction, in the process that made the prediction."""


def count(
    predictions: Iterable[Predicted],
    episodes: EpisodeSet,
    scores_of: MakeScores = Scores,
    observe: Observe = nothing,
) -> list[Scores]:
    """Return the scores of every manifest, summed over all processes.

    Args:
        predictions: predictions for this process's share of the episodes.
        episodes: the episodes of all processes.
        scores_of: creates the scores that count the predictions of a manifest.
        observe: called with every prediction.
    """
    scores = [scores_of(episodes.fold, manifest) for manifest in episodes.manifests]
    base, counted = None, None
    for planned, prediction, label in predictions:
        score = scores[planned.manifest_index]
        if label is not counted:  # the next query; its episodes share the base learner's prediction
            base, counted = score.count_base(prediction, label), label
        score.add(planned.episode_index, prediction, label)
        score.add_base(base)
        observe(planned, prediction)
    for score in scores:
        score.sum_over_processes()
    return scores
