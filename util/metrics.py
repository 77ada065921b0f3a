"""The IoU of few-shot segmentation: intersections and unions are summed over all episodes, then divided.

Everything is kept as integers, so neither the order of the episodes nor the number of processes changes a
digit. One episode gives ``Counts``; an ``IoUMeter`` sums them per class, background in row 0::

    meter = IoUMeter(1 + len(novel))
    counts = count_logits(prediction.logits, label)          # [background, foreground] of one episode
    meter.add(counts, rows=(0, 1 + class_index))
    meter.mean_iou(), meter.foreground_background_iou(), meter.pooled_iou()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = 255
EPSILON = 1e-10
"""Added to every union, as published."""


class Counts(NamedTuple):
    """Pixels of one or more images per class, int64 [classes] each."""

    intersection: Tensor
    union: Tensor
    target: Tensor

    def where_labelled(self) -> Counts:
        """Return the counts without those of classes that the label does not hold: PANet's rule.

        It drops false positives of an absent class, which matters with several ways.
        """
        present = self.target > 0
        return Counts(*(count * present for count in self))


def intersection_union_target(
    prediction: Tensor, label: Tensor, classes: int, ignore: int = IGNORE
) -> Counts:
    """Count pixels per class.

    Args:
        prediction: class per pixel, integer [...].
        label: the true class per pixel, the same shape; pixels of value ``ignore`` are not counted.
        classes: number of classes, background included.

    Raises:
        ValueError: shapes differ, or a value lies outside the classes.
    """
    if prediction.shape != label.shape:
        raise ValueError(
            f"prediction is {list(prediction.shape)} but label is {list(label.shape)}; resize one of them"
        )
    valid = label != ignore
    predicted, target = prediction[valid].long(), label[valid].long()
    for name, values in (("prediction", predicted), ("label", target)):
        if values.numel() and (values.min() < 0 or values.max() >= classes):
            raise ValueError(
                f"{name} holds values {int(values.min())} to {int(values.max())}, expected 0 to {classes - 1}"
            )
    hits = torch.bincount(target[predicted == target], minlength=classes)
    areas = torch.bincount(target, minlength=classes)
    union = torch.bincount(predicted, minlength=classes) + areas - hits
    return Counts(hits.cpu(), union.cpu(), areas.cpu())


def count_logits(logits: Tensor, label: Tensor, *, align_corners: bool = True) -> Counts:
    """Resize ``logits`` [B,C,h,w] to ``label`` [B,H,W] (or [H,W] for B = 1) and count."""
    label = label if label.ndim == 3 else label[None]
    prediction = resize_logits(logits, label.shape[-2:], align_corners=align_corners).argmax(1)
    return intersection_union_target(prediction, label.to(prediction.device), logits.shape[1])


def resize_logits(logits: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize logits [B,C,h,w] bilinearly to ``size`` (H, W)."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=align_corners)


def merge_generalised(final: Tensor, base: Tensor, merge: str = "final", merge_tau: float = 0.9) -> Tensor:
    """Join novel and base prediction into one map of base classes and novel class (BAM, eq. 18 and S1).

    Args:
        final: few-shot logits [B,2,H,W].
        base: base logits [B,1+N,H,W].
        merge: the class of a pixel that both predict: ``final`` the novel class, ``base`` the base class.
        merge_tau: the novel class is predicted where its probability exceeds this.

    Returns:
        int64 [B,H,W]: 0 background, 1..N base classes, N+1 the novel class.
    """
    base_class = base.argmax(1)
    novel = final.softmax(1)[:, 1] > merge_tau
    if merge == "base":
        novel = novel & (base_class == 0)
    elif merge != "final":
        raise ValueError(f"merge must be 'final' or 'base', got {merge!r}")
    return torch.where(novel, torch.full_like(base_class, base.shape[1]), base_class)


class IoUMeter:
    """Sums of counts per class.

    Attributes:
        counts: int64 [3, classes]: intersection, union and target. Meters of several processes or parts of a
            run are joined by adding these.
    """

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(3, classes, dtype=torch.int64)

    def add(self, counts: Counts, rows: Sequence[int] | None = None) -> None:
        """Add the counts of an episode.

        Args:
            counts: of C classes.
            rows: the class of this meter for each of the C; None: the same ones.
        """
        index = torch.arange(len(counts.union)) if rows is None else torch.as_tensor(rows)
        self.counts.index_add_(1, index, torch.stack(counts))

    def class_iou(self) -> Tensor:
        """Return the IoU of every class, float64 [classes]; 0 for a class that never occurred."""
        intersection, union = self.counts[:2].double()
        return intersection / (union + EPSILON)

    def class_iou_if_tested(self) -> list[float | None]:
        """Return the IoU of every class; None for a class that never occurs in the labels."""
        pairs = zip(self.class_iou().tolist(), self.counts[2].tolist(), strict=True)
        return [iou if target else None for iou, target in pairs]

    def mean_iou(self, classes: slice = slice(1, None), *, present_only: bool = False) -> float:
        """Return the mean IoU over ``classes``, by default all but the background.

        Args:
            classes: which ones.
            present_only: leave out classes that never occur in the labels, instead of counting them as 0.
        """
        present = self.counts[2, classes] > 0
        number = int(present.sum()) if present_only else len(present)
        return float(self.class_iou()[classes].sum()) / max(number, 1)

    def pooled_iou(self) -> float:
        """Return pIoU: all foreground classes counted as one."""
        intersection, union, _ = self.counts[:, 1:].sum(1).tolist()
        return intersection / (union + EPSILON)

    def foreground_background_iou(self) -> float:
        """Return FB-IoU: the mean of pIoU and the background's IoU."""
        return (float(self.class_iou()[0]) + self.pooled_iou()) / 2
