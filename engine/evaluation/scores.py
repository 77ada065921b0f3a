"""The scores of predictions: integer counts per class, summed over the episodes of a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.labels import VOID
from fewseg.dataset.reading.transform import class_table, look_up
from fewseg.model.contract import Prediction
from fewseg.util.distributed import all_sum
from fewseg.util.metrics import Counts, IoUMeter, count_logits
from fewseg.util.results.result import RoundResult

HEADLINE = "mIoU"
"""The metric that selects snapshots and fills tables."""


class Scores:
    """The counts of one seed, for three parts: the final prediction, the meta-learner and the base learner.

    Args:
        fold: the fold, with its classes and protocol.
        manifest: the episodes of the seed.

    Attributes:
        part: part whose counts a result contains.
        whole: parts of which every episode counts all classes.
        classes: part -> number of classes of its meter, background included.
        episodes: part -> counts of every episode, int64 [episodes, classes of an episode, 3].
        done: which episodes have been counted, bool [episodes].
        first_novel: first row of the meters that counts a novel class.
    """

    part = "final"
    whole: tuple[str, ...] = ("base",)
    first_novel = 1

    def __init__(self, fold: Fold, manifest: Manifest) -> None:
        self.fold, self.manifest = fold, manifest
        novel, base = 1 + len(fold.classes.novel), 1 + len(fold.classes.base)
        self.classes = {"final": novel, "meta": novel, "base": base}
        shown = {"final": 1 + manifest.ways, "meta": 1 + manifest.ways, "base": base}
        self.episodes = {part: self._no_counts(classes) for part, classes in shown.items()}
        self.done = torch.zeros(len(manifest), dtype=torch.bool)

    def _no_counts(self, classes: int) -> Tensor:
        return torch.zeros(len(self.manifest), classes, 3, dtype=torch.int64)

    def meter(self, part: str) -> IoUMeter:
        """Return the sums of a part over all episodes."""
        meter, counts = IoUMeter(self.classes[part]), self.episodes[part]
        if part in self.whole:
            meter.counts = counts.sum(0).T
        else:
            meter.counts.index_add_(1, self._rows.flatten(), counts.flatten(0, 1).T)
        return meter

    @cached_property
    def _rows(self) -> Tensor:
        return torch.tensor([self.rows(index) for index in range(len(self.manifest))])

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
        """Store the counts of an episode for a part."""
        if not self.fold.protocol.count_absent:
            counts = counts.where_labelled()
        classes = len(counts.union)  # a baseline predicts only the first way
        self.episodes[part][index, :classes] = torch.stack(counts, dim=1)

    def count_base(self, prediction: Prediction, label: np.ndarray) -> Counts | None:
        """Count the base learner's prediction, which is the same in every episode of a query.

        None without a base learner, and where other data than its own are tested, which have no base classes.
        """
        if "base" not in prediction.parts or not self.fold.classes.base:
            return None
        return self.count(prediction.parts["base"], self.target(label, self.fold.classes.base_table))

    def add_base(self, index: int, counts: Counts | None) -> None:
        """Store the base counts of an episode's query."""
        if counts is not None:
            self.episodes["base"][index] = torch.stack(counts, dim=1)

    def state(self) -> dict[str, np.ndarray]:
        """Return the counts so far by part, int32, and ``done``."""
        counts = {part: counts.int().numpy() for part, counts in self.episodes.items()}
        return {**counts, "done": self.done.numpy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the episodes that are done in ``state``, which ``state()`` returned.

        Raises:
            KeyError, IndexError, RuntimeError: the state is of other parts or sizes; nothing is changed.
        """
        done = torch.from_numpy(state["done"])
        taken = {part: torch.from_numpy(state[part]).long() for part in self.episodes}
        joined = {
            part: torch.where(done[:, None, None], taken[part], own) for part, own in self.episodes.items()
        }
        self.episodes, self.done = joined, self.done | done

    def forget(self, index: int) -> None:
        """Remove the counts of an episode."""
        self.done[index] = False
        for counts in self.episodes.values():
            counts[index] = 0

    def sum_over_processes(self) -> None:
        """Add the counts of the other processes."""
        self.episodes = {part: all_sum(counts) for part, counts in self.episodes.items()}

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name, as fractions."""
        metrics = self._novel_metrics("final", "")
        if self.counted("meta"):
            metrics |= self._novel_metrics("meta", "_meta")
        if self.counted("base"):
            metrics["mIoU_base"] = self.meter("base").mean_iou(present_only=True)
        return metrics

    def by_round(self) -> tuple[RoundResult, ...]:
        """Return the figures of every round of an adaptation; there are none without one."""
        return ()

    def class_iou(self) -> dict[str, float | None]:
        """Return the IoU of every novel class by its name; None for a class that no query shows."""
        names = map(self.fold.classes.label, self.fold.classes.novel)
        return dict(zip(names, self.meter(self.part).class_iou_if_tested()[1:], strict=True))

    def _novel_metrics(self, part: str, suffix: str) -> dict[str, float]:
        meter, protocol = self.meter(part), self.fold.protocol
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
        return part in self.episodes and bool(torch.any(self.episodes[part]))


MakeScores = Callable[[Fold, Manifest], Scores]
