"""SG-One: X. Zhang, Y. Wei, Y. Yang, T. S. Huang, "SG-One: Similarity Guidance Network for One-Shot Semantic
Segmentation", IEEE Transactions on Cybernetics 50(9), 2020.

One backbone feeds two branches. The guidance branch pools the support object to a vector and computes its
cosine similarity with every query position; the segmentation branch fuses three stages of the query. The
product of both is classified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fewseg.model.backbone.vgg import WITHOUT_LAST_STRIDES
from fewseg.model.contract import BuildArguments, MetaLearner
from fewseg.model.encoding import SHOT_LOGITS, Encoding
from fewseg.model.episode import IGNORE, Episode, Prediction
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.pooling import pool_at_image_resolution
from fewseg.model.layer.precision import in_float32
from fewseg.model.layer.resize import resize_like
from fewseg.model.options import Channels
from fewseg.model.records import Adaptation, GroupRule, Inputs, Learning, Map, Published

_EPSILON = 1e-8
"""Added to the area of a mask; in the published code, which adds nothing, an empty mask gives NaN."""

_SEGMENTATION = ("side2", "side3", "side4", "classifier", "exit")


@dataclass(frozen=True)
class SGOneOptions:
    """Options of SG-One.

    Attributes:
        kshot: with several supports, ``avg`` averages their vectors, and ``max`` takes the union of the masks
            that the supports give.
        exit_padding: zero padding of the last 1x1 convolution, 0 or 1. Published: 1, which surrounds the
            logits by a border that does not depend on the image, and shifts them slightly towards the centre.
        void_as_foreground: whether void pixels (255) of supports and query are foreground in training, as in
            the published data, which has one way only; in testing they never are.
        channel_order: ``bgr`` gives the network swapped channels, normalised by the constants of RGB, as in
            the published training; the published tests read ``rgb``.
        channels: width of the segmentation branch; 128 in the published network.
    """

    kshot: Literal["avg", "max"] = "avg"
    exit_padding: Literal[0, 1] = 1
    void_as_foreground: bool = False
    channel_order: Literal["rgb", "bgr"] = "rgb"
    channels: Channels = 128


class SGOne(MetaLearner):
    """Similarity to the support object weights the query's features; two convolutions classify them."""

    Options = SGOneOptions
    align_corners = False
    inputs = Inputs(query=("middle", "high"), support=("high",))
    learning = Learning(
        backbone=True,
        separate_biases=True,
        group_rules={
            **{
                f"{name}.bias": GroupRule(2)
                for name in ("backbone", "side2", "side3", "side4", "classifier", "exit")
            },
            "guidance": GroupRule(10),
            "guidance.bias": GroupRule(20),
        },
    )
    adaptation = Adaptation(blended=("prototype",))
    published = Published(
        backbone_variants={"vgg": WITHOUT_LAST_STRIDES},
        names={
            **{f"backbone.layer{stage}": f"netB.features_{stage + 1}" for stage in range(5)},
            "guidance": "netB.cls.0",
            **{f"side{stage}": f"netB.side{stage + 1}_1" for stage in (2, 3, 4)},
            "classifier": "classifier_6",
            "exit": "exit_layer",
        },
        maps=(Map("similarity", "cosine with the support's object"),),
    )

    def __init__(self, build: BuildArguments, options: SGOneOptions) -> None:
        super().__init__()
        self.options = options
        if options.channel_order == "bgr":
            self.inputs = replace(self.inputs, pixel_scale="swapped")
        spec, width = build.backbone.spec, options.channels
        fine, middle, deep = (spec.channels(name) for name in spec.names(self.inputs.query))
        self.side2 = nn.Sequential(*_convolution(fine, width))
        self.side3 = nn.Sequential(*_convolution(width + middle, width))
        self.side4 = nn.Sequential(_convolution(width + deep, width)[0])
        self.classifier = nn.Sequential(*_convolution(width, width))
        self.exit = nn.Conv2d(width, 2, 1, padding=options.exit_padding)
        self.guidance = nn.Conv2d(deep, deep, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        fine, middle, deep = (features[name] for name in ("middle.0", "middle.1", "high"))
        fused = resize_like(self.side2(fine), middle)
        fused = self.side3(torch.cat([fused, middle], 1))
        fused = self.side4(torch.cat([resize_like(fused, deep), deep], 1))
        return {"guidance": self.guidance(deep), "feature": fused}

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        inside = mask == 1
        if self.training and self.options.void_as_foreground:
            inside = inside | (mask == IGNORE)
        guidance = self.guidance(features["high"])
        return {"prototype": pool_at_image_resolution(guidance, inside, epsilon=_EPSILON)}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        """Return the vectors [B,P,C] with which the query is compared: one, or one per support."""
        prototype = support["prototype"]
        return {"prototype": prototype if self.options.kshot == "max" else prototype.mean(1, keepdim=True)}

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        prototype = guidance["prototype"][..., None, None]
        # not rectified: a negative similarity inverts the sign of the features
        similarity = in_float32(cosine_similarity)(query["guidance"].unsqueeze(1), prototype, dim=2)
        guided = query["feature"].unsqueeze(1) * similarity.unsqueeze(2)
        logits = self.exit(self.classifier(guided.flatten(0, 1)))
        shot_logits = logits.unflatten(0, similarity.shape[:2])
        parts = {**guidance, "similarity": similarity, SHOT_LOGITS: shot_logits}
        return Prediction(self.join_shots(shot_logits), parts)

    def join_shots(self, shot_logits: Tensor) -> Tensor:
        """Select at every pixel the shot with the highest foreground margin: the union of the masks."""
        if shot_logits.shape[1] == 1:
            return shot_logits[:, 0]
        margin = shot_logits[:, :, 1] - shot_logits[:, :, 0]
        best = margin.argmax(1)[:, None, None].expand(-1, -1, *shot_logits.shape[2:])
        return shot_logits.gather(1, best)[:, 0]

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        label = episode.ground_truth
        if self.options.void_as_foreground and episode.ways == 1:
            label = label.masked_fill(label == IGNORE, 1)
        return {"main": pixel_cross_entropy(prediction.logits, label, align_corners=self.align_corners)}


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)
