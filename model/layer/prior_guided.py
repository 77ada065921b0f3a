"""The encoders of PFENet and its descendants: reduced middle features, and high features for the prior."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fewseg.model.contract import Backbone, MetaLearner
from fewseg.model.encoding import Encoding
from fewseg.model.layer.block import reduction
from fewseg.model.layer.features import middle_features
from fewseg.model.layer.pooling import foreground, masked_average_pool
from fewseg.model.layer.prior import object_features
from fewseg.model.layer.resize import resize_like
from fewseg.model.records import Adaptation, Inputs, Published, SupportView


class PriorGuided(MetaLearner):
    """A meta-learner guided by a support prototype and by PFENet's prior.

    Args:
        backbone: the backbone whose features it reads.
        channels: channels of the reduced features and of the prototype.
        dropout: share of channels of the reduced features that are dropped in training.
    """

    inputs = Inputs(view=SupportView.MASKED_LAYER4).reading("middle", "high")
    adaptation: Adaptation | None = Adaptation(blended=("prototype", "prior"))
    published = Published(names={"query_reduction": "down_query", "support_reduction": "down_supp"})

    def __init__(self, backbone: Backbone, channels: int, dropout: float = 0.5) -> None:
        super().__init__()
        inputs = backbone.spec.channels("middle")
        self.query_reduction = reduction(inputs, channels, dropout)
        self.support_reduction = reduction(inputs, channels, dropout)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {
            "feature": self.query_reduction(middle_features(features)),
            "prior_query": features["high"],
        }

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        mask = foreground(mask)
        feature = self.support_reduction(middle_features(features))
        return {
            "prototype": masked_average_pool(feature, resize_like(mask, feature)),
            "prior_object": object_features(features["high"], mask),
        }
