"""PFENet: Z. Tian, H. Zhao, M. Shu, Z. Yang, R. Li, J. Jia, "Prior Guided Feature Enrichment Network for
Few-Shot Segmentation", TPAMI 2020.

A training-free prior from high-level features and a support prototype of mid-level features guide a decoder
that compares query and guidance at several scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.enrichment import (
    INNER_MAP,
    PUBLISHED_NAMES,
    EnrichmentDecoder,
    check_scales,
    enrichment_losses,
    grid_sizes,
)
from fewseg.model.layer.prior_guided import PriorGuided
from fewseg.model.layer.resize import resize
from fewseg.model.layer.retain_and_recover import (
    ACTIVATION_MAPS,
    RetainAndRecover,
    RetainAndRecoverOptions,
    profile_transforms,
)
from fewseg.model.meta.pfenet.single_scale import SingleScaleDecoder
from fewseg.model.options import Channels, Scales, Weight
from fewseg.model.records import Adaptation, Learning, Published


@dataclass(frozen=True)
class PFENetOptions(RetainAndRecoverOptions):
    """Options of PFENet.

    Attributes:
        unidirectional_pooling, error_prone_region, adaptive_integration: see ``RetainAndRecoverOptions``.
        profile_softmax, error_prone_weight: see ``RetainAndRecoverOptions``.
        prior: whether the prior guides the query besides the prototype.
        feature_enrichment: what follows the guidance: ``fem`` as published, or what the paper compares it
            with, on a single scale: ``ppm``, ``aspp``, or ``none``. Their details are ours.
        inter_scale_interaction: how information passes between the scales of ``fem``: ``top_down``, from fine
            to coarse, as published; ``bottom_up``; one after the other, ``top_down_bottom_up`` or
            ``bottom_up_top_down``, where the second path has layers of its own; or ``none``. Only the first
            was released.
        ppm_scales: grids to which the query is pooled, finest first: sides in positions, or fractions of the
            query's feature grid if a value is at most 1.0. Published: 60, 30, 15, 8 for PASCAL, and
            1.0, 0.5, 0.25, 0.125 for COCO. The network's weights depend only on their number.
        aux_weight: weight of the inner losses.
        fix_bn: whether the frozen backbone normalises with its stored statistics in training. Published:
            False, so it normalises by the batch, and its statistics drift away from the pretrained ones.
        channels: width of the decoder; 256 in the published network.
    """

    prior: bool = True
    feature_enrichment: Literal["fem", "ppm", "aspp", "none"] = "fem"
    inter_scale_interaction: Literal[
        "top_down", "bottom_up", "top_down_bottom_up", "bottom_up_top_down", "none"
    ] = "top_down"
    ppm_scales: Scales = (60, 30, 15, 8)
    aux_weight: Weight = 1.0
    fix_bn: bool = True
    channels: Channels = 256

    def __post_init__(self) -> None:
        check_scales(self.ppm_scales)


class PFENet(PriorGuided):
    """Prototype and prior, averaged over the shots with equal weights, and multi-scale feature enrichment.

    RARE's strategies can be used around its merge, which is our composition: prototypes and activation maps
    are pooled to every scale, whose merge gets a second branch.
    """

    Options = PFENetOptions
    published = Published(
        names={**PriorGuided.published.names, **PUBLISHED_NAMES},
        maps=(*PriorGuided.published.maps, INNER_MAP),
    )

    def __init__(self, build: BuildArguments, options: PFENetOptions) -> None:
        width = options.channels
        super().__init__(build.backbone, width, prior=options.prior)
        self.options = options
        self.learning = Learning().with_stored_statistics(options.fix_bn)
        if options.error_prone_region:
            self.published = replace(self.published, maps=(*self.published.maps, *ACTIVATION_MAPS))
        self.decoder = _decoder(options)
        self.rows, self.columns = profile_transforms(width, options)
        self.strategies = RetainAndRecover(options, self.rows, self.columns)
        prior = ("prior",) if options.prior else ()
        self.adaptation = Adaptation(blended=(*self.strategies.blended, *prior))

    def encode_object(self, feature: Tensor, mask: Tensor) -> Encoding:
        return self.strategies.encode(feature, mask)

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        guidance = self.strategies.guide(query["feature"], support)
        if self.options.prior:
            guidance["prior"] = self.priors(query, support).mean(1)
        return guidance

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature, options = query["feature"], self.options
        scales = options.ppm_scales if options.feature_enrichment == "fem" else (1.0,)
        maps = [guidance["prior"]] if options.prior else []
        maps += self.strategies.activations(guidance)
        guides = [
            torch.cat([feature.new_empty(len(feature), 0, *size), *(resize(each, size) for each in maps)], 1)
            for size in grid_sizes(scales, feature.shape[-2:])
        ]
        prototypes, share = self.strategies.prototypes(guidance), guidance.get("error_prone_share")
        logits, inner = self.decoder(feature, prototypes, guides, share)
        return Prediction(logits, {**guidance, **inner})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {
            **enrichment_losses(prediction, episode.ground_truth, self.options.aux_weight),
            **self.strategies.losses(prediction, episode),
        }


def _decoder(options: PFENetOptions) -> nn.Module:
    """Return the layers between the guidance and the logits."""
    width, maps = options.channels, options.prior + options.activation_maps
    if options.feature_enrichment != "fem":
        return SingleScaleDecoder(
            width, options.feature_enrichment, maps=maps, error_prone=options.error_prone_region
        )
    return EnrichmentDecoder(
        width,
        len(options.ppm_scales),
        maps=maps,
        error_prone=options.error_prone_region,
        interaction=options.inter_scale_interaction,
    )
