"""The input and the output of a few-shot network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import itemgetter

import torch
from torch import Tensor

from fewseg.model import waiting

IGNORE = 255
"""The label of pixels that losses and metrics ignore."""

UNLABELLED = 254
"""The label of support pixels that belong neither to the way's class nor to the background: the object of
another way, or pixels that a weak annotation does not label. Binary methods treat them as background."""


@dataclass(frozen=True)
class Episode:
    """A batch of few-shot tasks: B queries, each with N ways of K annotated supports.

    Attributes:
        query: normalised query images, float [B,3,H,W].
        support: normalised support images, float [B,N,K,3,H,W].
        support_mask: 0 background, 1 the way's class, 254 unlabelled, 255 void; int64 [B,N,K,H,W].
        class_id: dataset ids of the ways' classes, int64 [B,N].
        class_index: the same, zero-based among the fold's base classes, int64 [B,N]; training only.
        query_mask: 0 background, n the n-th way, 255 void; int64 [B,H,W].
        base_label: 0 background, j the j-th base class, 255 void; int64 [B,H,W].
        query_padding: True where the query holds letterbox padding instead of image, bool [B,H,W].
        auxiliary: further images of every way, float [B,N,M,3,H,W]; see ``AuxiliarySet``.
        auxiliary_label: their mined labels: j the j-th latent class, 0 background, 255 void; int64
            [B,N,M,H,W].
        query_number: index that identifies a query image in all epochs, int64 [B]; training only.
    """

    query: Tensor
    support: Tensor
    support_mask: Tensor
    class_id: Tensor
    class_index: Tensor | None = None
    query_mask: Tensor | None = None
    base_label: Tensor | None = None
    query_padding: Tensor | None = None
    auxiliary: Tensor | None = None
    auxiliary_label: Tensor | None = None
    query_number: Tensor | None = None

    def __post_init__(self) -> None:
        if self.query.ndim != 4:
            raise ValueError(f"query must be [B,3,H,W], got {list(self.query.shape)}")
        if self.support.ndim != 6 or self.support.shape[0] != len(self.query):
            raise ValueError(
                f"support must be [B,N,K,3,H,W] with B = {len(self.query)}, got {list(self.support.shape)}"
            )
        expected = self.support.shape[:3] + self.support.shape[-2:]
        if self.support_mask.shape != expected:
            raise ValueError(f"support_mask must be {list(expected)}, got {list(self.support_mask.shape)}")
        if self.class_id.shape != self.support.shape[:2]:
            raise ValueError(
                f"class_id must be [B,N] = {list(self.support.shape[:2])}, got {list(self.class_id.shape)}"
            )

    @property
    def ways(self) -> int:
        return self.support.shape[1]

    @property
    def shots(self) -> int:
        return self.support.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the queries."""
        return self.query.shape[-2], self.query.shape[-1]

    @property
    def ground_truth(self) -> Tensor:
        """The query mask, which losses need.

        Raises:
            ValueError: there is none.
        """
        if self.query_mask is None:
            raise ValueError("this episode has no query_mask, which losses are computed from")
        return self.query_mask

    def to(self, device: torch.device | str) -> Episode:
        """Return the episode on ``device``; the host does not wait for a copy to a GPU.

        ``class_id`` and ``query_number`` stay in main memory then, as only the host reads these ids.
        """
        target = torch.device(device)
        moved = self._with(lambda tensor: waiting.sent(tensor, target))
        if target.type == "cpu":
            return moved
        return replace(moved, class_id=self.class_id, query_number=self.query_number)

    def pin_memory(self) -> Episode:
        """Return the episode in pinned memory, which a GPU copies from without the host."""
        return self._with(lambda tensor: tensor.pin_memory())

    def parts(self, count: int) -> list[Episode]:
        """Return ``count`` equal parts of the queries."""
        size = len(self.query) // count
        starts = range(0, size * count, size)
        return [self._with(itemgetter(slice(start, start + size))) for start in starts]

    def labelled(self) -> Tensor:
        """Return the number of labelled pixels of the queries, on the device."""
        return (self.ground_truth != IGNORE).sum()

    def _with(self, change: Callable[[Tensor], Tensor]) -> Episode:
        """Return the episode with every tensor changed."""
        tensors = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return replace(self, **{name: change(value) for name, value in tensors.items() if value is not None})


@dataclass(frozen=True)
class Prediction:
    """The output of a network for B queries.

    Attributes:
        logits: [B,1+N,H,W], channel 0 the background.
        parts: named intermediates for losses, reports, figures and parity: ``meta`` and ``base`` logits,
            ``prior``, ``prototype``, ...; first axis the queries.
    """

    logits: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
