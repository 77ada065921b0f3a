"""PFENet: Z. Tian, H. Zhao, M. Shu, Z. Yang, R. Li, J. Jia, "Prior Guided Feature Enrichment Network for
Few-Shot Segmentation", TPAMI 2020.

A training-free prior from high-level features and a support prototype of mid-level features guide a decoder
that compares query and guidance at several scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.interface import Encoding, Episode, MetaLearner, Prediction, Setting, SupportView
from model.layer.block import reduction
from model.layer.enrichment import (
    PUBLISHED_NAMES,
    EnrichmentDecoder,
    check_scales,
    enrichment_losses,
    grid_sizes,
)
from model.layer.features import middle_channels, middle_features
from model.layer.pooling import foreground, masked_average_pool
from model.layer.prior import object_features, shot_priors
from model.layer.resize import resize, resize_like


@dataclass(frozen=True)
class PFENetOptions:
    """Switches of PFENet.

    Attributes:
        ppm_scales: grids that the query is pooled to, finest first: sides in positions, or fractions of the
            query's feature grid where a value is at most 1.0. Published: 60, 30, 15, 8 for PASCAL, and
            1.0, 0.5, 0.25, 0.125 for COCO. The weights depend on their number only.
        aux_weight: of the inner losses.
        fix_bn: whether the frozen backbone normalises with its stored statistics in training. Published:
            False, where it normalises by the batch and its statistics drift away from the pretrained ones.
        channels: width of the decoder; 256 in the published network.
    """

    ppm_scales: tuple[float, ...] = (60, 30, 15, 8)
    aux_weight: float = 1.0
    fix_bn: bool = True
    channels: int = 256

    def __post_init__(self) -> None:
        check_scales(self.ppm_scales)


class PFENet(MetaLearner):
    """Prototype and prior, plainly averaged over the shots, and feature enrichment over several scales."""

    Options = PFENetOptions
    query_features = ("layer2", "layer3", "layer4")
    support_features = ("layer2", "layer3", "layer4")
    support_view = SupportView.MASKED_LAYER4
    mixable = ("prototype", "prior")
    published_names: Mapping[str, str] = {
        "query_reduction": "down_query",
        "support_reduction": "down_supp",
        **PUBLISHED_NAMES,
    }

    def __init__(self, setting: Setting, options: PFENetOptions) -> None:
        super().__init__()
        self.options = options
        self.fix_bn = options.fix_bn
        width, inputs = options.channels, middle_channels(setting.backbone)
        self.query_reduction = reduction(inputs, width, dropout=0.5)
        self.support_reduction = reduction(inputs, width, dropout=0.5)
        self.decoder = EnrichmentDecoder(width, len(options.ppm_scales))

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {
            "feature": self.query_reduction(middle_features(features)),
            "prior_query": features["layer4"],
        }

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        mask = foreground(mask)
        feature = self.support_reduction(middle_features(features))
        return {
            "prototype": masked_average_pool(feature, resize_like(mask, feature)),
            "prior_object": object_features(features["layer4"], mask),
        }

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        priors = shot_priors(query["prior_query"], support["prior_object"])
        return {"prototype": support["prototype"].mean(1), "prior": priors.mean(1)}

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature = query["feature"]
        sizes = grid_sizes(self.options.ppm_scales, feature.shape[-2:])
        priors = [resize(guidance["prior"], size) for size in sizes]
        logits, inner = self.decoder(feature, guidance["prototype"], priors)
        return Prediction(logits, {**guidance, **inner})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return enrichment_losses(prediction, episode.query_mask, self.options.aux_weight)
