"""BAM's meta-learner: C. Lang, G. Cheng, B. Tu, J. Han, "Learning What Not to Segment", CVPR 2022.

A support prototype and PFENet's prior guide an ASPP decoder over the query. The other half of BAM, the base
learner and the ensemble that suppresses what it knows, is ``model/ensemble.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.interface import Encoding, Episode, MetaLearner, Prediction, Setting, SupportView
from model.layer.block import reduction
from model.layer.decoder import ASPPDecoder, published_decoder_names
from model.layer.features import middle_channels, middle_features
from model.layer.loss import pixel_cross_entropy
from model.layer.pooling import foreground, masked_average_pool, tile
from model.layer.prior import object_features, shot_priors
from model.layer.resize import resize_like
from model.layer.shot_weights import ShotWeights, fuse_shots


@dataclass(frozen=True)
class BAMOptions:
    """Switches of BAM.

    Attributes:
        kshot_trans_dim: hidden width of the network that weighs K supports; 0 for a linear one.
        shot_weights: ``learned`` as published, which binds a checkpoint to its K; ``uniform`` runs a 1-shot
            checkpoint with any K.
        channels: width of the decoder; 256 in the published network.
        dropout: share of the reduced features' channels that training drops; 0.5 in the published network.
    """

    kshot_trans_dim: int = 2
    shot_weights: Literal["learned", "uniform"] = "learned"
    channels: int = 256
    dropout: float = 0.5


class BAM(MetaLearner):
    """Prototype and prior, fused over the shots by learned weights, then an ASPP decoder."""

    Options = BAMOptions
    query_features = ("layer2", "layer3", "layer4")
    support_features = ("layer2", "layer3", "layer4")
    support_view = SupportView.MASKED_LAYER4
    default_base = "pspnet"
    default_ensemble = "bam"
    mixable = ("prototype", "prior")
    published_names: Mapping[str, str] = {
        "query_reduction": "down_query",
        "support_reduction": "down_supp",
        "merge": "init_merge",
        "shot_weights.network": "kshot_rw",
        **published_decoder_names("decoder", "_meta"),
    }

    def __init__(self, setting: Setting, options: BAMOptions) -> None:
        super().__init__()
        width, inputs = options.channels, middle_channels(setting.backbone)
        self.query_reduction = reduction(inputs, width, dropout=options.dropout)
        self.support_reduction = reduction(inputs, width, dropout=options.dropout)
        self.merge = reduction(2 * width + 1, width)
        self.decoder = ASPPDecoder(width)
        self.shot_weights = ShotWeights(
            setting, options.kshot_trans_dim, learned=options.shot_weights == "learned"
        )

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {
            "feature": self.query_reduction(middle_features(features)),
            "prior_query": features["layer4"],
            **self.shot_weights.encode(features),
        }

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        mask = foreground(mask)
        feature = self.support_reduction(middle_features(features))
        return {
            "prototype": masked_average_pool(feature, resize_like(mask, feature)),
            "prior_object": object_features(features["layer4"], mask),
            **self.shot_weights.encode(features),
        }

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        weights = self.shot_weights(query, support)
        priors = shot_priors(query["prior_query"], support["prior_object"])
        return {
            "prototype": fuse_shots(support["prototype"], weights),
            "prior": fuse_shots(priors, weights),
            "shot_weights": weights,
        }

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature = query["feature"]
        guide = tile(guidance["prototype"], feature)
        merged = self.merge(torch.cat([feature, guide, resize_like(guidance["prior"], feature)], 1))
        return Prediction(self.decoder(merged), dict(guidance))

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"main": pixel_cross_entropy(prediction.logits, episode.query_mask)}
