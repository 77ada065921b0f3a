"""PANet: K. Wang, J. H. Liew, Y. Zou, D. Zhou, J. Feng, "PANet: Few-Shot Image Semantic Segmentation with
Prototype Alignment", ICCV 2019.

Every way and the background get one prototype; a query position is assigned to the nearest prototype. There
is no head; only the backbone is trained. In training, the supports are also segmented with prototypes of the
predicted query masks (the alignment loss).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewseg.model.backbone.vgg import WITHOUT_LAST_POOLINGS
from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import IGNORE, Episode, Prediction
from fewseg.model.layer.alignment import alignment_loss
from fewseg.model.layer.nearest_prototype import NearestPrototype
from fewseg.model.layer.pooling import pool_at_image_resolution
from fewseg.model.options import Factor, Weight
from fewseg.model.records import Inputs, Learning


@dataclass(frozen=True)
class PANetOptions:
    """Options of PANet.

    Attributes:
        align: whether the alignment loss is used in training.
        align_weight: weight of the alignment loss.
        scale: factor that turns cosines into logits.
        void_as_background: whether void support pixels (255) count as background, as published. Pixels that
            are ``UNLABELLED`` never do.
    """

    align: bool = True
    align_weight: Weight = 1.0
    scale: Factor = 20.0
    void_as_background: bool = True


class PANet(NearestPrototype):
    """Masked average pooling at image resolution, then the nearest prototype by cosine."""

    Options = PANetOptions
    align_corners = False
    inputs = Inputs(multi_way=True)
    learning = Learning(backbone=True)
    published = replace(
        NearestPrototype.published,
        backbone_variants={"vgg": WITHOUT_LAST_POOLINGS},
        names={f"backbone.layer{stage}": f"encoder.backbone.features.{2 * stage}" for stage in range(5)},
    )

    def __init__(self, build: BuildArguments, options: PANetOptions) -> None:
        super().__init__(options.scale)
        self.options = options

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = features["signed"]
        encoding = {
            "foreground": pool_at_image_resolution(feature, mask == 1),
            "background": pool_at_image_resolution(feature, self._background(mask)),
        }
        return encoding | ({"feature": feature} if self.training and self.options.align else {})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        losses = super().losses(prediction, episode, generator)
        if "score" not in prediction.parts:
            return losses
        parts, label = prediction.parts, self._support_label(episode.support_mask.flatten(0, 2))
        align = alignment_loss(
            parts["query_feature"], parts["score"], parts["support_feature"], label, self.options.scale
        )
        return {**losses, "align": self.options.align_weight * align}

    def _background(self, mask: Tensor) -> Tensor:
        background = mask == 0
        return background | (mask == IGNORE) if self.options.void_as_background else background

    def _support_label(self, mask: Tensor) -> Tensor:
        label = torch.full_like(mask, IGNORE)
        label[self._background(mask)] = 0
        label[mask == 1] = 1
        return label
