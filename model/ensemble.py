"""BAM's ensemble of base and meta learner, usable around any binary meta-learner.

C. Lang, G. Cheng, B. Tu, J. Han, "Learning What Not to Segment", CVPR 2022, section 4.3: pixels in which the
base learner recognises a base class cannot show the novel class. The weight of this information depends on
the similarity of query and support.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fewseg.model.encoding import ADJUSTED, GRAM, LOGITS, META_LOGITS, Encoding
from fewseg.model.layer.gram import gram_distance, scene_gram
from fewseg.model.layer.resize import resize_like
from fewseg.model.records import Map, MapKind

ENSEMBLE_MAPS = (
    Map(META_LOGITS, "meta-learner alone", MapKind.FOREGROUND),
    Map(ADJUSTED, "with the scene distance", MapKind.FOREGROUND),
    Map(LOGITS, "with the base learner: final", MapKind.FOREGROUND),
)
"""The three steps of the ensemble, as figures show them."""


class BaseMetaEnsemble(nn.Module):
    """Two 1x1 mixtures: meta probabilities with the scene distance, then background with base foreground.

    Args:
        low_feature: feature or role of the backbone whose Gram matrices measure how similar two scenes are.
    """

    def __init__(self, low_feature: str = "low") -> None:
        super().__init__()
        self.low_feature = low_feature
        self.gram_merge = _mixture()
        self.cls_merge = _mixture()

    @property
    def features(self) -> tuple[str, ...]:
        """Backbone features that it reads, of query and support."""
        return (self.low_feature,)

    def encode(self, features: Mapping[str, Tensor]) -> Encoding:
        """Return the Gram matrix [B,C,C] of an image."""
        return {GRAM: scene_gram(features, self.low_feature)}

    def scene_distance(self, query: Encoding, support: Encoding, weights: Tensor | None) -> Tensor:
        """Return the distance [B] between a query and its K supports, weighted [B,K] or averaged."""
        distance = gram_distance(query[GRAM], support[GRAM])
        return distance.mean(1) if weights is None else (weights * distance).sum(1)

    def adjust(self, meta: Tensor, distance: Tensor) -> Tensor:
        """Mix the scene distance [B] into the meta-learner's probabilities, logits [B,2,h,w] -> [B,2,h,w]."""
        background, foreground = meta.softmax(1).split(1, 1)
        distance = distance[:, None, None, None].expand_as(background)
        background = self.gram_merge(torch.cat([background, distance], 1))
        foreground = self.gram_merge(torch.cat([foreground, distance], 1))
        return torch.cat([background, foreground], 1)

    def forward(self, meta: Tensor, base: Tensor, distance: Tensor, excluded: Tensor | None = None) -> Tensor:
        """Merge both learners.

        Args:
            meta: binary logits [B,2,h,w].
            base: logits [B,1+classes,h,w] at any resolution.
            distance: scene distance [B].
            excluded: zero-based base class [B] that is the target in meta-training and must not count as
                background.

        Returns:
            [B,2,h,w]: unnormalised probabilities, which the published method uses as logits from here on.
        """
        probability = base.softmax(1)
        base_foreground = probability[:, 1:].sum(1, keepdim=True)
        if excluded is not None:
            target = (excluded + 1)[:, None, None, None].expand(-1, 1, *base.shape[-2:])
            base_foreground = base_foreground - probability.gather(1, target)
        background, foreground = self.adjust(meta, distance).split(1, 1)
        background = self.cls_merge(torch.cat([background, resize_like(base_foreground, meta)], 1))
        return torch.cat([background, foreground], 1)


def _mixture() -> nn.Conv2d:
    """Return a weighted sum of two maps, initialised to the first of them."""
    mixture = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        mixture.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
    return mixture
