"""PFENet: Z. Tian, H. Zhao, M. Shu, Z. Yang, R. Li, J. Jia, "Prior Guided Feature Enrichment Network for
Few-Shot Segmentation", TPAMI 2020.

A training-free prior from high-level features and a support prototype of mid-level features guide a decoder
that compares query and guidance at several scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.enrichment import (
    PUBLISHED_NAMES,
    EnrichmentDecoder,
    check_scales,
    enrichment_losses,
    grid_sizes,
)
from fewseg.model.layer.prior import shot_priors
from fewseg.model.layer.prior_guided import PriorGuided
from fewseg.model.layer.resize import resize
from fewseg.model.options import Channels, Scales, Weight
from fewseg.model.records import Learning, Published


@dataclass(frozen=True)
class PFENetOptions:
    """Options of PFENet.

    Attributes:
        ppm_scales: grids to which the query is pooled, finest first: sides in positions, or fractions of the
            query's feature grid if a value is at most 1.0. Published: 60, 30, 15, 8 for PASCAL, and
            1.0, 0.5, 0.25, 0.125 for COCO. The network's weights depend only on their number.
        aux_weight: weight of the inner losses.
        fix_bn: whether the frozen backbone normalises with its stored statistics in training. Published:
            False, so it normalises by the batch, and its statistics drift away from the pretrained ones.
        channels: width of the decoder; 256 in the published network.
    """

    ppm_scales: Scales = (60, 30, 15, 8)
    aux_weight: Weight = 1.0
    fix_bn: bool = True
    channels: Channels = 256

    def __post_init__(self) -> None:
        check_scales(self.ppm_scales)


class PFENet(PriorGuided):
    """Prototype and prior, averaged over the shots with equal weights, and multi-scale feature enrichment."""

    Options = PFENetOptions
    published = Published(names={**PriorGuided.published.names, **PUBLISHED_NAMES})

    def __init__(self, build: BuildArguments, options: PFENetOptions) -> None:
        super().__init__(build.backbone, options.channels)
        self.options = options
        self.learning = Learning().with_stored_statistics(options.fix_bn)
        self.decoder = EnrichmentDecoder(options.channels, len(options.ppm_scales))

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
        return enrichment_losses(prediction, episode.ground_truth, self.options.aux_weight)
