"""HDMNet: B. Peng, Z. Tian, X. Wu, C. Wang, S. Liu, J. Su, J. Jia, "Hierarchical Dense Correlation
Distillation for Few-Shot Segmentation", CVPR 2023.

Query and support are encoded separately by self-attention at three scales; the query is matched with the
support object at each of them. In training, the scores of a coarser scale are the target of the next finer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from fewseg.model.contract import BuildArguments, MetaLearner
from fewseg.model.encoding import SHOT_WEIGHTS, Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.block import reduction
from fewseg.model.layer.features import middle_features
from fewseg.model.layer.loss import binary_tasks, pixel_cross_entropy
from fewseg.model.layer.pooling import foreground, gather_positions, masked_average_pool, tile
from fewseg.model.layer.prior import largest_cosine
from fewseg.model.layer.resize import resize, resize_like
from fewseg.model.layer.shot_weights import SHOT_BOUND, RankedShotWeightOptions, ShotWeights
from fewseg.model.meta.hdmnet.matching import LEVELS, MatchingTransformer, published_matching_names
from fewseg.model.options import Channels, Factor, Weight
from fewseg.model.records import BASE_FEATURE, Inputs, Learning, Map, Published, SupportView

_FAR = -1e9

_COMPARED = ("embedding", "high")
"""The features whose largest cosines with the support object guide the query."""


@dataclass(frozen=True)
class HDMNetOptions(RankedShotWeightOptions):
    """Options of HDMNet.

    Attributes:
        kshot_trans_dim, shot_weights, kshot_unsort: see ``RankedShotWeightOptions``.
        train_shot_weights: whether the network that computes the weights of the supports is trained.
            Published: False, it is missing from the optimizer and keeps its initial weights.
        distill_weight: weight of the distillation loss.
        similarity_scale: factor of the similarities before they are concatenated with the query feature.
        channels: channels of the reduced features; 256 in the published network.
        matching_channels: channels of the transformer, a multiple of 8; 64 in the published network.
    """

    train_shot_weights: bool = False
    distill_weight: Weight = 1.0
    similarity_scale: Factor = 10.0
    channels: Channels = 256
    matching_channels: Channels = 64

    def __post_init__(self) -> None:
        if self.matching_channels % 8:
            raise ValueError(
                f"option 'matching_channels' of hdmnet must be a multiple of 8, got {self.matching_channels}"
            )


class HDMNet(MetaLearner):
    """Prototype and two similarities guide a transformer that matches query and support object."""

    Options = HDMNetOptions
    inputs = Inputs(view=SupportView.MASKED_IMAGE).reading("middle", "high", BASE_FEATURE)
    learning = Learning(shot_bound=SHOT_BOUND)
    published = Published(
        base="pspnet",
        ensemble="bam",
        names={
            "base_head.ppm": "ppm",
            "base_head.cls": "cls",
            "base_head.cls.4": "base_learnear.2",
            "query_reduction": "down_query",
            "support_reduction": "down_supp",
            "support_merge": "supp_merge",
            "shot_weights.network": "kshot_rw",
            **published_matching_names("transformer", "transformer.mix_transformer"),
        },
        maps=(
            Map("similarity", "largest cosine with the object", names=("base learner", "backbone")),
            Map("score#", "matching score of level #"),
        ),
    )

    def __init__(self, build: BuildArguments, options: HDMNetOptions) -> None:
        super().__init__()
        self.options = options
        width, inputs = options.channels, build.backbone.spec.channels("middle")
        self.transformer = MatchingTransformer(options.matching_channels)  # first: it learns more slowly
        self.support_reduction = reduction(inputs, width, dropout=0.5)
        self.query_reduction = reduction(inputs, width, dropout=0.5)
        self.query_merge = reduction(2 * width + 2, options.matching_channels)
        self.support_merge = reduction(2 * width, options.matching_channels)
        self.shot_weights = ShotWeights(build, options)
        self.shot_weights.requires_grad_(options.train_shot_weights)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {
            "feature": self.query_reduction(middle_features(features)),
            "high": features["high"],
            "embedding": features[BASE_FEATURE],
            **self.shot_weights.encode(features),
        }

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        mask = foreground(mask)
        feature = self.support_reduction(middle_features(features))
        prototype = masked_average_pool(feature, resize_like(mask, feature))
        merged = self.support_merge(torch.cat([feature, tile(prototype, feature)], 1))
        encoding = {
            "prototype": prototype,
            "high_object": _object(features["high"], mask),
            "embedding_object": _object(features[BASE_FEATURE], mask),
            **self.shot_weights.encode(features),
        }
        for level, encoded in enumerate(self.transformer.encode(merged)):
            inside = _nearest(mask, encoded) > 0
            encoding[f"tokens{level}"] = gather_positions(encoded, inside)
            encoding[f"inside{level}"] = gather_positions(inside.to(encoded.dtype), inside)[:, 0]
        return encoding

    def comparisons(
        self, query: Encoding, support: Encoding, memory: dict[str, Any] | None = None
    ) -> Encoding:
        return {
            f"{name}_similarity": largest_cosine(query[name], support[f"{name}_object"]) for name in _COMPARED
        }

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        names = [f"{name}_similarity" for name in _COMPARED]
        compared = support if names[0] in support else self.comparisons(query, support)
        tokens = {f"tokens{n}": support[f"tokens{n}"].transpose(2, 3).flatten(1, 2) for n in range(LEVELS)}
        return {
            "prototype": support["prototype"].mean(1),
            "similarity": torch.stack([compared[name].mean(1) for name in names], 1),
            **tokens,
            **{f"inside{n}": support[f"inside{n}"].flatten(1, 2) for n in range(LEVELS)},
            SHOT_WEIGHTS: self.shot_weights(query, support),
        }

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature, similarity = query["feature"], guidance["similarity"]
        guides = [tile(guidance["prototype"], feature), self.options.similarity_scale * similarity]
        merged = self.query_merge(torch.cat([feature, *guides], 1))
        tokens, inside = ([guidance[f"{kind}{n}"] for n in range(LEVELS)] for kind in ("tokens", "inside"))
        logits, scores = self.transformer(merged, similarity, tokens, inside)
        parts = {name: guidance[name] for name in ("prototype", "similarity", SHOT_WEIGHTS)}
        return Prediction(logits, parts | {f"score{level}": score for level, score in enumerate(scores)})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        _, label = binary_tasks(prediction.logits, episode.ground_truth)
        scores = [prediction.parts[f"score{level}"] for level in reversed(range(LEVELS))]
        scores = [score.reshape(len(label), *score.shape[-2:]) for score in scores]
        return {
            "main": pixel_cross_entropy(prediction.logits, episode.ground_truth),
            "distill": self.options.distill_weight * distillation(scores, label),
        }


def distillation(scores: list[Tensor], label: Tensor) -> Tensor:
    """Return the mean divergence of every level's scores from those of the next coarser level (section 3.4).

    Args:
        scores: scores of every level [B,h,w], coarse to fine.
        label: target of the coarsest level; [B,H,W] of 0, 1 and 255.
    """
    teacher = label.to(scores[0].dtype).masked_fill(label == 0, _FAR)
    divergence = []
    for student in scores:
        resized = resize(teacher.unsqueeze(1), tuple(student.shape[-2:]), align_corners=False)
        target, predicted = resized.flatten(1).softmax(1), student.flatten(1).softmax(1)
        divergence.append((target * ((target + 1e-12).log() - (predicted + 1e-12).log())).sum(1).mean())
        teacher = student.detach()
    return torch.stack(divergence).mean()


def _nearest(mask: Tensor, like: Tensor) -> Tensor:
    return interpolate(mask, like.shape[-2:], mode="nearest")


def _object(feature: Tensor, mask: Tensor) -> Tensor:
    """Gather the vectors under ``mask`` [B,1,H,W] -> [B,C,P].

    In the published code, positions outside the mask are zero vectors, whose cosine 0 may be the largest. One
    zero vector is appended for them.
    """
    inside = _nearest(mask, feature) > 0
    gathered = gather_positions(feature, inside)
    return pad(gathered, (0, int(gathered.shape[-1] < inside[0].numel())))
