"""The encoders of PFENet and its descendants: reduced middle features, and high features for the prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from fewseg.model.contract import Backbone, MetaLearner
from fewseg.model.encoding import Encoding
from fewseg.model.layer.block import reduction
from fewseg.model.layer.features import middle_features
from fewseg.model.layer.pooling import foreground, masked_average_pool
from fewseg.model.layer.prior import PRIOR_MAP, object_features, shot_priors
from fewseg.model.layer.resize import resize_like
from fewseg.model.records import Adaptation, Inputs, Published, SupportView

_SHOT_PRIOR = "shot_prior"


class PriorGuided(MetaLearner):
    """A meta-learner guided by a support prototype and by PFENet's prior.

    Args:
        backbone: the backbone whose features it reads.
        channels: channels of the reduced features and of the prototype.
        dropout: share of channels of the reduced features that are dropped in training.
        prior: whether the prior is used; without it no high feature is read.
    """

    inputs = Inputs(view=SupportView.MASKED_LAYER4).reading("middle", "high")
    adaptation: Adaptation | None = Adaptation(blended=("prototype", "prior"))
    published = Published(
        names={"query_reduction": "down_query", "support_reduction": "down_supp"}, maps=(PRIOR_MAP,)
    )

    def __init__(
        self, backbone: Backbone, channels: int, dropout: float = 0.5, *, prior: bool = True
    ) -> None:
        super().__init__()
        if not prior:
            self.inputs = replace(self.inputs, view=SupportView.PLAIN).reading("middle")
        self.reads_prior = prior
        inputs = backbone.spec.channels("middle")
        self.query_reduction = reduction(inputs, channels, dropout)
        self.support_reduction = reduction(inputs, channels, dropout)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        encoding = {"feature": self.query_reduction(middle_features(features))}
        return encoding | {"prior_query": features["high"]} if self.reads_prior else encoding

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        mask = foreground(mask)
        encoding = self.encode_object(self.support_reduction(middle_features(features)), mask)
        if self.reads_prior:
            encoding["prior_object"] = object_features(features["high"], mask)
        return encoding

    def comparisons(
        self, query: Encoding, support: Encoding, memory: dict[str, Any] | None = None
    ) -> Encoding:
        if not self.reads_prior:
            return {}
        return {_SHOT_PRIOR: shot_priors(query["prior_query"], support["prior_object"])}

    def priors(self, query: Encoding, support: Encoding) -> Tensor:
        """Return the priors of K supports, [B,K,1,h,w], from the support's encoding if they are there."""
        compared = support if _SHOT_PRIOR in support else self.comparisons(query, support)
        return compared[_SHOT_PRIOR]

    def encode_object(self, feature: Tensor, mask: Tensor) -> Encoding:
        """Encode the object of supports by reduced features [B,C,h,w] and foreground [B,1,H,W]."""
        return {"prototype": masked_average_pool(feature, resize_like(mask, feature))}
