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
    """Pixels per class of one or more images, int64 [classes] each, or [images, classes]."""

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
    """Count pixels per class, int64 [classes] each on the device of the prediction.

    Args:
        prediction: class per pixel, integer [...] of 0 to ``classes`` - 1.
        label: the true class per pixel, the same shape and range; pixels of value ``ignore`` are not counted.
        classes: number of classes, background included.

    Raises:
        ValueError: shapes differ.
    """
    return Counts(*(count[0] for count in count_per_image(prediction[None], label[None], classes, ignore)))


def count_per_image(prediction: Tensor, label: Tensor, classes: int, ignore: int = IGNORE) -> Counts:
    """Count pixels per class for every image of a batch, int64 [B,classes] each.

    Every pixel adds one to an entry of its image's confusion matrix, which has a further row for ignored
    pixels. The sizes of all tensors are therefore known without looking at a value, and the host never waits
    for the device. That is also why no value is checked here: labels are checked when they are read.

    Args:
        prediction: class per pixel, integer [B,...]; see ``intersection_union_target``.
        label: the true class per pixel, the same shape.
        classes: number of classes, background included.
        ignore: pixels with this label are not counted.

    Raises:
        ValueError: shapes differ.
    """
    if prediction.shape != label.shape:
        raise ValueError(
            f"prediction is {list(prediction.shape)} but label is {list(label.shape)}; resize one of them"
        )
    images, device = len(prediction), prediction.device
    row = label.to(device).long().flatten(1)
    row = row.masked_fill(row == ignore, classes)
    row = row + (classes + 1) * torch.arange(images, device=device)[:, None]
    entry = (row * classes + prediction.flatten(1)).flatten()
    confusion = torch.zeros(images * (classes + 1) * classes, dtype=torch.int64, device=device)
    confusion.scatter_add_(0, entry, torch.ones_like(entry))
    confusion = confusion.view(images, classes + 1, classes)[:, :classes]
    hits, areas = confusion.diagonal(dim1=1, dim2=2), confusion.sum(2)
    return Counts(hits, confusion.sum(1) + areas - hits, areas)


def count_logits(logits: Tensor, label: Tensor, *, align_corners: bool = True) -> Counts:
    """Resize ``logits`` [B,C,h,w] to ``label`` [B,H,W] (or [H,W] for B = 1) and count all pixels."""
    label = label if label.ndim == 3 else label[None]
    prediction = resize_logits(logits, label.shape[-2:], align_corners=align_corners).argmax(1)
    return intersection_union_target(prediction, label, logits.shape[1])


def resize_logits(logits: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize logits [B,C,h,w] bilinearly to ``size`` (H, W), at least in float32.

    In a reduced precision, many interpolated logits of two classes would be equal.
    """
    logits = logits.float() if logits.element_size() < 4 else logits
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
        self.counts.index_add_(1, index, torch.stack(counts).to(self.counts.device))

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
