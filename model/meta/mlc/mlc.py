"""MLC: L. Yang, W. Zhuo, L. Qi, Y. Shi, Y. Gao, "Mining Latent Classes for Few-shot Segmentation", ICCV 2021.

Only the code of the baseline (``MLC``) was published: every query position is assigned to the foreground or
background prototype of the supports with the higher cosine. Only the backbone is trained. It ends one stage
early and without its last activation, so that features are signed. ``MLCReconstruction`` is our
reconstruction of the full method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.nearest_prototype import NearestPrototype
from fewseg.model.layer.pooling import pool_at_image_resolution
from fewseg.model.layer.precision import in_float32
from fewseg.model.meta.mlc.latent_classes import Regions, at_positions, find_regions, mining_loss
from fewseg.model.options import Between, Cosine, Count, Factor, Share, Weight
from fewseg.model.records import AuxiliarySet, Inputs, Learning


@dataclass(frozen=True)
class MLCOptions:
    """Options of MLC's baseline.

    Attributes:
        scale: factor that turns cosines into logits.
        last_relu: whether the last ReLU of the backbone is kept, so that no feature is negative. Published:
            False, it is removed.
        fix_bn: whether the backbone's BatchNorms normalise with their stored statistics in training.
            Published: True. If not, they normalise by the batch, and learn the statistics.
        learn_bn_affine: whether scales and offsets of the backbone's BatchNorms are learned. Published:
            False.
    """

    scale: Factor = 10.0
    last_relu: bool = False
    fix_bn: bool = True
    learn_bn_affine: bool = False


class MLC(NearestPrototype):
    """The published baseline: masked average pooling at image resolution, then the nearest prototype."""

    Options = MLCOptions
    learning = Learning(backbone=True, backbone_affine=False)
    published = replace(
        NearestPrototype.published,
        backbone_variants={
            "resnet": {"dilation": (1, 1, 2, 1), "dilate_first_block": False, "last_stage": "layer3"}
        },
        names={
            "backbone.": "backbone.",
            "backbone.layer0": "backbone.conv1",
            "backbone.layer0.7": "backbone.bn1",
        },
    )

    def __init__(self, build: BuildArguments, options: MLCOptions) -> None:
        super().__init__(options.scale)
        self.options = options
        learning = replace(self.learning, backbone_affine=options.learn_bn_affine)
        self.learning = learning.with_stored_statistics(options.fix_bn)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {"feature": self.embedding(features)}

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = self.embedding(features)
        return {
            name: pool_at_image_resolution(feature, mask == value, align_corners=True)
            for value, name in enumerate(("background", "foreground"))
        }

    def embedding(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the features [B,C,h,w] that are compared."""
        return features["signed"].relu() if self.options.last_relu else features["signed"]


@dataclass(frozen=True)
class MLCReconstructionOptions(MLCOptions):
    """Options of the reconstruction; all defaults but those of ``MLCOptions`` are assumptions of ours.

    Attributes:
        scale, last_relu, fix_bn, learn_bn_affine: see ``MLCOptions``.
        mining_weight: weight of the loss on mined labels.
        min_area: regions with at most this many positions are ignored.
        prototype_source: the prototypes with which mined images are compared: those of ``other`` images that
            show the class, or their own (``self``).
        background_share: share of the supports in the background prototype, the rest being the global one's;
            1 for no rectification.
        background_momentum: momentum of the global background prototype; 1 for the mean of all batches.
        foreground_share: share of the supports in the foreground prototype, the rest being that of similar
            regions; 1 for no rectification.
        regions: largest number of similar regions that are averaged.
        region_threshold: lowest cosine of a similar region to the foreground prototype.
        region_bank: number of regions that are kept from training for use in testing; 0 for none.
    """

    mining_weight: Weight = 1.0
    min_area: Annotated[int, Between(0, 1_000_000)] = 4
    prototype_source: Literal["other", "self"] = "other"
    background_share: Share = 0.5
    background_momentum: Share = 0.999
    foreground_share: Share = 0.5
    regions: Count = 5
    region_threshold: Cosine = 0.7
    region_bank: Annotated[int, Between(0, 100_000)] = 0


class MLCReconstruction(MLC):
    """The full method as reconstructed from its public description; no code of it was released.

    The description contains the mining of latent classes by clusters of base-class prototypes, training on
    such labels in addition to the episodes, a global background prototype that is updated in training, and
    foreground prototypes mixed with regions of further images. The details are assumptions of this project,
    so results are not the authors'. Without mined images and with both shares 1, it is the published
    baseline.
    """

    Options = MLCReconstructionOptions
    options: MLCReconstructionOptions
    global_background: Tensor
    batches_seen: Tensor
    region_bank: Tensor
    inputs = Inputs(auxiliary=AuxiliarySet.MINED)

    def __init__(self, build: BuildArguments, options: MLCReconstructionOptions) -> None:
        super().__init__(build, options)
        channels = build.backbone.spec.channels("signed")
        self.register_buffer("global_background", torch.zeros(channels))
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("region_bank", torch.zeros(options.region_bank, channels))

    def encode_auxiliary(self, features: Mapping[str, Tensor], label: Tensor | None) -> Encoding:
        if label is None:
            raise ValueError("mlc-reconstruction learns from mined labels: pass them with auxiliary images")
        feature = self.embedding(features)
        return {"auxiliary": feature, "auxiliary_label": at_positions(label, feature.shape[-2:])}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        guidance = super().match(query, support)
        background, foreground = guidance["prototype"].unbind(1)
        options, mined = self.options, {}
        regions = self.region_bank, torch.ones_like(self.region_bank[:, 0], dtype=torch.bool)
        if self.training and "auxiliary" in support:
            mined = {name: support[name] for name in ("auxiliary", "auxiliary_label")}
            regions = self._regions(mined).objects()
            self._keep(*regions)
        if options.background_share < 1:
            background = self._with_global(background)
        if options.foreground_share < 1:
            foreground = self._with_similar(foreground, *regions)
        return {"prototype": torch.stack([background, foreground], 1)} | mined

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        losses = super().losses(prediction, episode, generator)
        if self.options.mining_weight == 0 or "auxiliary" not in prediction.parts:
            return losses
        feature = prediction.parts["auxiliary"].flatten(0, -4)
        regions = self._regions(prediction.parts)
        loss = mining_loss(feature, regions, self.options.scale, source=self.options.prototype_source)
        return {**losses, "mining": self.options.mining_weight * loss}

    def _regions(self, mined: Mapping[str, Tensor]) -> Regions:
        feature, label = mined["auxiliary"].flatten(0, -4), mined["auxiliary_label"].flatten(0, -3)
        return find_regions(feature, label, self.options.min_area)

    def _with_global(self, background: Tensor) -> Tensor:
        """Mix the global background prototype, updated in training, into those of the episodes [B,C]."""
        if self.training:
            batches = self.batches_seen.double()
            momentum = (batches / (batches + 1)).clamp_max(self.options.background_momentum)  # first a mean
            mean = background.detach().mean(0)
            self.global_background.copy_(momentum * self.global_background + (1 - momentum) * mean)
            self.batches_seen += 1
        share = self.options.background_share
        mixed = share * background + (1 - share) * self.global_background
        return torch.where(self.batches_seen > 0, mixed, background)

    @in_float32
    def _with_similar(self, foreground: Tensor, regions: Tensor, counts: Tensor) -> Tensor:
        """Mix the most similar of those regions [R,C] that count [R] into each foreground prototype [B,C]."""
        if len(regions) == 0:
            return foreground
        share, count = self.options.foreground_share, min(self.options.regions, len(regions))
        cosine = (normalize(foreground, dim=1) @ normalize(regions, dim=1).T).masked_fill(~counts, -torch.inf)
        largest, index = cosine.topk(count, 1)
        similar = (largest >= self.options.region_threshold).to(foreground).unsqueeze(2)
        mean = (regions[index] * similar).sum(1) / similar.sum(1).clamp_min(1)
        return torch.where(similar.any(1), share * foreground + (1 - share) * mean, foreground)

    def _keep(self, regions: Tensor, counts: Tensor) -> None:
        """Add those of new regions [R,C] that count [R] to the bank, and remove the oldest."""
        if size := len(self.region_bank):
            kept = torch.cat([torch.ones_like(self.region_bank[:, 0], dtype=torch.bool), counts])
            newest = kept.to(torch.uint8).sort(stable=True).indices[-size:]
            self.region_bank.copy_(torch.cat([self.region_bank, regions.detach()])[newest])
