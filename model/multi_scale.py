"""Multi-scale testing: a few-shot model segments scaled copies of every query.

As CANet's paper does (Zhang et al., CVPR 2019): queries are scaled by 0.7, 1 and 1.3, supports are not, and
the probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewseg.model.encoding import Encoding
from fewseg.model.episode import Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.resize import resize
from fewseg.model.records import SameSize

_LEAST = 1e-12
"""The least probability, so that logits are finite."""


class MultiScale(FewShotModel):
    """A few-shot model in testing, which shares the networks of ``model``.

    The encoding of a query contains those of all scales, so that it is still computed once, and supports are
    encoded as ever. Further parts of the prediction are those of the query itself.

    Args:
        model: the model.
        scales: factors of the sides of the queries; 1 is one of them.

    Raises:
        ValueError: the method needs queries as large as the supports.
    """

    def __init__(self, model: FewShotModel, scales: Sequence[float]) -> None:
        if model.meta.inputs.same_size is SameSize.ALL:
            raise ValueError(
                f"{type(model.meta).__name__} needs queries as large as the supports, so it cannot be tested "
                "at several scales; leave the key out"
            )
        super().__init__(
            model.backbone,
            model.meta,
            model.base_head,
            model.ensemble,
            base_dropout=model.base_dropout,
            aux_weights=model.aux_weights,
        )
        self.scales = sorted(scales, key=lambda scale: abs(scale - 1))

    def encode_query(self, image: Tensor) -> Encoding:
        encoding: Encoding = {}
        for index, scale in enumerate(self.scales):
            size = self._scaled((image.shape[-2], image.shape[-1]), scale)
            own = super().encode_query(resize(image, size, align_corners=False))
            encoding |= {f"{index}:{name}": tensor for name, tensor in own.items()}
        return encoding

    def comparisons(
        self, query: Encoding, support: Encoding, memory: dict[str, Any] | None = None
    ) -> Encoding:
        """Return nothing: they differ between the scales."""
        return {}

    def decode(
        self, query: Encoding, support: Encoding, size: tuple[int, int], excluded: Tensor | None = None
    ) -> Prediction:
        predictions = []
        for index, scale in enumerate(self.scales):
            prefix = f"{index}:"
            own = {k.removeprefix(prefix): tensor for k, tensor in query.items() if k.startswith(prefix)}
            predictions.append(super().decode(own, support, self._scaled(size, scale), excluded))
        probabilities = [resize(prediction.logits.softmax(1), size) for prediction in predictions]
        mean = torch.stack(probabilities).mean(0)
        return Prediction(mean.clamp_min(_LEAST).log(), predictions[0].parts)

    def _scaled(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """Return the height and width next to ``scale`` times ``size`` that fit the backbone."""
        multiple = self.backbone.spec.side_multiple
        height, width = (max(1, round(side * scale / multiple)) * multiple for side in size)
        return height, width
