"""MLC: L. Yang, W. Zhuo, L. Qi, Y. Shi, Y. Gao, "Mining Latent Classes for Few-shot Segmentation", ICCV 2021.

Published is the baseline alone: foreground and background prototypes of the supports, and the nearer one by
cosine for every query position. Nothing is learned but the backbone, which ends one stage early and without
its last activation, so that features are signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.interface import Encoding, Episode, MetaLearner, Prediction, Setting
from model.layer.loss import pixel_cross_entropy
from model.layer.pooling import pool_at_image_resolution
from model.layer.prototype import cosine_scores


@dataclass(frozen=True)
class MLCOptions:
    """Switches of MLC's baseline.

    Attributes:
        scale: what cosines are multiplied by to become logits.
    """

    scale: float = 10.0


class MLC(MetaLearner):
    """The published baseline: masked average pooling at image resolution, then the nearest prototype."""

    Options = MLCOptions
    trains_backbone = True
    trains_bn = False
    mixable = ("prototype",)
    backbone_variants: Mapping[str, Mapping[str, object]] = {
        "resnet": {"dilation": (1, 1, 2, 1), "dilate_first_block": False, "last_stage": "layer3"}
    }
    published_names: Mapping[str, str] = {
        "backbone.": "backbone.",
        "backbone.layer0": "backbone.conv1",
        "backbone.layer0.7": "backbone.bn1",
    }

    def __init__(self, setting: Setting, options: MLCOptions) -> None:
        super().__init__()
        if "layer4" in setting.backbone.stages:
            raise ValueError("mlc cuts off the last stage of a ResNet, which vgg16 has not; choose a ResNet")
        self.options = options
        self.feature = setting.backbone.taps("layer3")[-1]  # the last block before its activation
        self.query_features = self.support_features = (self.feature,)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {"feature": features[self.feature]}

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = features[self.feature]
        return {
            name: pool_at_image_resolution(feature, mask == value, align_corners=True)
            for value, name in enumerate(("background", "foreground"))
        }

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        background, foreground = support["background"].mean(1), support["foreground"].mean(1)
        return {"prototype": torch.stack([background, foreground], 1)}

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        score = cosine_scores(query["feature"], guidance["prototype"], self.options.scale)
        return Prediction(score, dict(guidance))

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"main": pixel_cross_entropy(prediction.logits, episode.query_mask)}
