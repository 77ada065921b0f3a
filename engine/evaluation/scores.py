"""The scores of predictions: integer counts per class, summed over the episodes of a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.episodes.sampling import EpisodeSpec
from fewseg.dataset.labels import VOID
from fewseg.dataset.reading.transform import class_table, relabel
from fewseg.model.contract import Prediction
from fewseg.model.waiting import sent
from fewseg.util.distributed import all_sum
from fewseg.util.metrics import Counts, IoUMeter, count_per_image, resize_logits
from fewseg.util.results.result import RoundResult

HEADLINE = "mIoU"
"""The metric that selects snapshots and fills tables."""

PartCounts = dict[str, Tensor]
"""Part -> counts of B episodes, int64 [B, classes of an episode, 3]: intersection, union and target."""


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
        """Count and store the prediction of an episode, see ``count``, without the base learner's."""
        self.store([index], self.count([self.manifest[index]], prediction, label))

    def count(self, specs: Sequence[EpisodeSpec], prediction: Prediction, label: np.ndarray) -> PartCounts:
        """Count the predictions for B episodes of one query, on the device of the prediction.

        Args:
            specs: the episodes.
            prediction: their predictions, first axis B.
            label: the query's label of dataset ids [H,W].
        """
        targets = self.targets(label, [class_table(spec.class_ids) for spec in specs], prediction.logits)
        counts = {"final": self._count_novel(prediction.logits, targets)}
        if "meta" in prediction.parts and len(specs[0].class_ids) == 1:
            counts["meta"] = self._count_novel(prediction.parts["meta"], targets)
        return counts

    def count_base(self, prediction: Prediction, label: np.ndarray) -> PartCounts:
        """Count the base learner's prediction, which is the same in every episode of a query.

        There are no counts without a base learner, and where other data than its own are tested, which have
        no base classes.

        Args:
            prediction: predictions for the query, of which only the first is used.
            label: the query's label of dataset ids [H,W].
        """
        if "base" not in prediction.parts or not self.fold.classes.base:
            return {}
        logits = prediction.parts["base"][:1]
        target = self.targets(label, [self.fold.classes.base_table], logits)
        return {"base": torch.stack(self.count_maps(logits, target), dim=2)}

    def store(self, indices: Sequence[int], counts: PartCounts) -> None:
        """Store the counts of episodes, which lie on the CPU by now; those of the base learner are of all."""
        for part, counted in counts.items():
            classes = counted.shape[1]  # a baseline predicts only the first way
            self.episodes[part][list(indices), :classes] = counted

    def add_counts(self, part: str, index: int, counts: Counts) -> None:
        """Store the counts of an episode for a part, as the protocol counts classes that no label holds."""
        self.store([index], {part: torch.stack(self._of_protocol(counts), dim=1)[None]})

    def _count_novel(self, logits: Tensor, targets: Tensor) -> Tensor:
        return torch.stack(self._of_protocol(self.count_maps(logits, targets)), dim=2)

    def _of_protocol(self, counts: Counts) -> Counts:
        return counts if self.fold.protocol.count_absent else counts.where_labelled()

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

    def targets(self, label: np.ndarray, tables: Sequence[np.ndarray], like: Tensor) -> Tensor:
        """Map a query's label of dataset ids to the targets that predictions are compared with.

        Args:
            label: the label, [H,W].
            tables: maps from dataset ids to classes, one per target; see ``class_table``.
            like: a tensor on the device of the predictions.

        Returns:
            uint8 [targets,H,W] on that device.
        """
        mapped = np.stack([relabel(label, table) for table in tables])
        if not self.fold.protocol.ignore:
            mapped[mapped == VOID] = 0
        return sent(torch.from_numpy(mapped), like.device)

    def count_maps(self, logits: Tensor, targets: Tensor) -> Counts:
        """Upsample logits [B,C,h,w] to the size of the targets [B,H,W] and count, int64 [B,C] each."""
        corners, size = self.fold.protocol.align_corners, targets.shape[-2:]
        upsampled = resize_logits(self.without_padding(logits, size), size, align_corners=corners)
        return count_per_image(upsampled.argmax(1), targets, logits.shape[1])

    def without_padding(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Crop the part of the logits that is padding, if a target of ``size`` (H, W) has no padding."""
        protocol = self.fold.protocol
        if protocol.label_size != "original" or protocol.resize not in ("letterbox", "shrink"):
            return logits
        rows, columns = self.fold.resize.content(*size)
        return logits[..., :rows, :columns]

    def counted(self, part: str) -> bool:
        """Return whether anything has been counted for a part."""
        return part in self.episodes and bool(torch.any(self.episodes[part]))


MakeScores = Callable[[Fold, Manifest], Scores]
