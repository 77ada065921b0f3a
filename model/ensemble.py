"""BAM's ensemble of base and meta learner, usable around any binary meta-learner.

C. Lang, G. Cheng, B. Tu, J. Han, "Learning What Not to Segment", CVPR 2022, section 4.3: pixels in which the
base learner recognises a base class cannot show the novel class. The weight of this information depends on
the similarity of query and support.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewseg.model.encoding import ADJUSTED, GRAM, LOGITS, META_LOGITS, Encoding
from fewseg.model.layer.gram import gram_distance, scene_gram
from fewseg.model.layer.precision import in_float32
from fewseg.model.layer.resize import resize_like
from fewseg.model.records import Map, MapKind

ENSEMBLE_MAPS = (
    Map(META_LOGITS, "meta-learner alone", MapKind.FOREGROUND),
    Map(ADJUSTED, "with the scene distance", MapKind.FOREGROUND),
    Map(LOGITS, "with the base learner: final", MapKind.FOREGROUND),
)
"""The three steps of the ensemble, as figures show them."""


@dataclass(frozen=True)
class EnsembleOptions:
    """Options of the ensemble, its two parts.

    Attributes:
        adjustment_factor: whether the adjustment factor psi, the difference between the scenes of query and
            support, is mixed into the meta-learner's probabilities. It is one number for both classes, so by
            itself it changes the loss, but not which class is more probable.
        base_prediction: whether the base learner's foreground is mixed into the background.
    """

    adjustment_factor: bool = True
    base_prediction: bool = True

    def __post_init__(self) -> None:
        if not (self.adjustment_factor or self.base_prediction):
            raise ValueError(
                "an ensemble without its two parts changes nothing; leave it out (ensemble: none)"
            )


class BaseMetaEnsemble(nn.Module):
    """Two 1x1 mixtures: meta probabilities with the scene distance, then background with base foreground.

    Args:
        low_feature: feature or role of the backbone whose Gram matrices measure how similar two scenes are.
        options: which of the mixtures it has; both by default.
    """

    Options = EnsembleOptions

    def __init__(self, low_feature: str = "low", options: EnsembleOptions | None = None) -> None:
        super().__init__()
        options = options or EnsembleOptions()
        self.low_feature = low_feature
        self.gram_merge = _mixture() if options.adjustment_factor else None
        self.cls_merge = _mixture() if options.base_prediction else None

    @property
    def features(self) -> tuple[str, ...]:
        """Backbone features that it reads, of query and support."""
        return () if self.gram_merge is None else (self.low_feature,)

    def encode(self, features: Mapping[str, Tensor]) -> Encoding:
        """Return the Gram matrix [B,C,C] of an image, if it is needed."""
        return {} if self.gram_merge is None else {GRAM: scene_gram(features, self.low_feature)}

    def scene_distance(self, query: Encoding, support: Encoding, weights: Tensor | None) -> Tensor | None:
        """Return the distance [B] between a query and its K supports, weighted [B,K] or averaged.

        It is None without the adjustment factor.
        """
        if self.gram_merge is None:
            return None
        distance = gram_distance(query[GRAM], support[GRAM])
        return distance.mean(1) if weights is None else (weights * distance).sum(1)

    @in_float32
    def adjust(self, meta: Tensor, distance: Tensor | None) -> Tensor:
        """Mix the scene distance [B] into the meta-learner's probabilities, logits [B,2,h,w] -> [B,2,h,w]."""
        if self.gram_merge is None or distance is None:
            return meta.softmax(1)
        background, foreground = meta.softmax(1).split(1, 1)
        distance = distance[:, None, None, None].expand_as(background)
        background = self.gram_merge(torch.cat([background, distance], 1))
        foreground = self.gram_merge(torch.cat([foreground, distance], 1))
        return torch.cat([background, foreground], 1)

    @in_float32
    def forward(
        self, meta: Tensor, base: Tensor, distance: Tensor | None, excluded: Tensor | None = None
    ) -> Tensor:
        """Merge both learners.

        Args:
            meta: binary logits [B,2,h,w].
            base: logits [B,1+classes,h,w] at any resolution.
            distance: scene distance [B], the result of ``scene_distance``.
            excluded: zero-based base class [B] that is the target in meta-training and must not count as
                background.

        Returns:
            [B,2,h,w]: unnormalised probabilities, which the published method uses as logits from here on.
        """
        adjusted = self.adjust(meta, distance)
        if self.cls_merge is None:
            return adjusted
        background, foreground = adjusted.split(1, 1)
        known = resize_like(_base_foreground(base, excluded), meta)
        background = self.cls_merge(torch.cat([background, known], 1))
        return torch.cat([background, foreground], 1)


def _base_foreground(base: Tensor, excluded: Tensor | None) -> Tensor:
    """Return the probability of all base classes but the excluded one, [B,1,h,w]."""
    probability = base.softmax(1)
    foreground = probability[:, 1:].sum(1, keepdim=True)
    if excluded is None:
        return foreground
    target = (excluded + 1)[:, None, None, None].expand(-1, 1, *base.shape[-2:])
    return foreground - probability.gather(1, target)


def _mixture() -> nn.Conv2d:
    """Return a weighted sum of two maps, initialised to the first of them."""
    mixture = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        mixture.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
    return mixture
