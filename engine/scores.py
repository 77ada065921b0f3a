"""What a prediction is worth: integer counts per class, summed over the episodes of a seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dataset.episodes import EpisodeSpec
from dataset.fold import Fold
from dataset.transform import class_table, look_up, square_label
from model.interface import Prediction
from util.distributed import all_sum
from util.metrics import Counts, IoUMeter, count_logits

HEADLINE = "mIoU"
"""The metric that selects snapshots and fills tables."""


class Scores:
    """The counts of one seed: of the final prediction, of the meta-learner alone, of the base learner.

    Args:
        fold: its classes and protocol.
    """

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        novel, base = 1 + len(fold.split.novel), 1 + len(fold.split.base)
        self.meters = {"final": IoUMeter(novel), "meta": IoUMeter(novel), "base": IoUMeter(base)}

    def add(self, prediction: Prediction, spec: EpisodeSpec, label: np.ndarray) -> None:
        """Count the prediction of one episode against its query's label of dataset ids, uint8 [H,W]."""
        target = look_up(label, class_table(spec.class_ids))
        rows = (0, *(1 + self.fold.split.novel.index(class_id) for class_id in spec.class_ids))
        self.meters["final"].add(self._count(prediction.logits, target), rows)
        if "meta" in prediction.parts and len(spec.class_ids) == 1:
            self.meters["meta"].add(self._count(prediction.parts["meta"], target), rows)

    def count_base(self, prediction: Prediction, label: np.ndarray) -> Counts | None:
        """Count the base learner's part, which is the same in every episode of a query."""
        if "base" not in prediction.parts:
            return None
        return self._count(prediction.parts["base"], look_up(label, self.fold.split.base_table))

    def add_base(self, counts: Counts | None, times: int = 1) -> None:
        """Add a query's base counts once for each of its episodes."""
        if counts is not None:
            self.meters["base"].add(Counts(*(times * count for count in counts)))

    def sum_over_processes(self) -> None:
        """Add the counts of the other processes."""
        for meter in self.meters.values():
            meter.counts = all_sum(meter.counts)

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name, as fractions."""
        metrics = self._novel_metrics("final", "")
        if self._counted("meta"):
            metrics |= self._novel_metrics("meta", "_meta")
        if self._counted("base"):
            metrics["mIoU_base"] = self.meters["base"].mean_iou(present_only=True)
        return metrics

    def class_iou(self) -> dict[str, float]:
        """Return the IoU of every novel class by its name."""
        names = [self.fold.split.names[class_id] for class_id in self.fold.split.novel]
        return dict(zip(names, self.meters["final"].class_iou()[1:].tolist(), strict=True))

    def _novel_metrics(self, part: str, suffix: str) -> dict[str, float]:
        meter, protocol = self.meters[part], self.fold.protocol
        mean = meter.mean_iou(present_only=protocol.absent_classes == "left_out")
        metrics = {f"{HEADLINE}{suffix}": mean}
        if protocol.fb_iou:
            metrics[f"FB-IoU{suffix}"] = meter.foreground_background_iou()
        return metrics | {f"pIoU{suffix}": meter.pooled_iou()}

    def _count(self, logits: Tensor, target: Tensor) -> Counts:
        return count_logits(logits, target, align_corners=self.fold.protocol.align_corners)

    def _counted(self, part: str) -> bool:
        return bool(torch.any(self.meters[part].counts))


def scored_label(label: np.ndarray, fold: Fold) -> np.ndarray:
    """Return a query's label in the form that the protocol compares predictions with."""
    return square_label(label) if fold.protocol.label_size == "square" else label
