"""FSIL: S. Lei, X. Zhang, J. He, F. Chen, C.-T. Lu, "Few-Shot Semantic Segmentation Augmented with
Image-Level Weak Annotations", arXiv 2007.01496, 2020.

Besides its K masked supports, a class has an auxiliary set: M images of which it is only known that they show
the class. Features that are similar to the support prototype are averaged into it, in several iterations. The
fused prototype segments the query and, in training, the supports too, which keeps it from drifting.

No code was released. Certain are the auxiliary set in training and in testing, the cosine maps, the weighted
average of sufficiently similar features, its sum with the support prototype, the iteration, and both losses.
The number of iterations, the softmax weights, the threshold, the normalised sum, the weights without gradient
and the unchanged background prototype are this project's proposals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fewseg.model.backbone.vgg import WITHOUT_LAST_POOLINGS
from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import Encoding
from fewseg.model.episode import IGNORE, Episode, Prediction
from fewseg.model.layer.alignment import alignment_loss, score_supports
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.nearest_prototype import NearestPrototype
from fewseg.model.layer.pooling import masked_average_pool, pool_at_image_resolution
from fewseg.model.layer.precision import in_float32
from fewseg.model.layer.resize import resize
from fewseg.model.options import Cosine, CountOrNone, Factor, Weight
from fewseg.model.records import AuxiliarySet, Inputs, Learning

_EPSILON = 1e-5
_TOO_LITTLE = 1e-3
"""If the sum of weights is lower, the prototype is not fused."""
_SURE_BACKGROUND = 0.9


@dataclass(frozen=True)
class FSILOptions:
    """Options of FSIL. All defaults but the support loss's weight are proposals.

    Attributes:
        iterations: number of fusions with the auxiliary set; 0 for plain prototype matching.
        weighting: weight of a position of an auxiliary image: its probability of the class (``softmax``), or
            its ``cosine`` to the prototype if positive.
        distill: whether positions below ``threshold`` get weight 0.
        threshold: lowest cosine to the prototype.
        fuse_from: whether every fusion adds to the ``initial`` prototype or to the ``previous`` fusion.
        fusion_weight: weight of the auxiliary prototype relative to the support's.
        update_background: whether the background prototype is fused with confident background positions.
        detach_masks: whether the weights of positions are constants in training.
        auxiliary_gradient: whether the backbone learns from the auxiliary images too.
        map_at: whether features are pooled at ``image`` resolution, or masks downsampled to the ``feature``.
        support_weight: weight of the loss on the supports.
        align_weight: weight of PANet's alignment loss, which is not part of the method.
        scale: factor that turns cosines into logits.
    """

    iterations: CountOrNone = 2
    weighting: Literal["softmax", "cosine"] = "softmax"
    distill: bool = True
    threshold: Cosine = 0.6
    fuse_from: Literal["initial", "previous"] = "initial"
    fusion_weight: Weight = 1.0
    update_background: bool = False
    detach_masks: bool = True
    auxiliary_gradient: bool = True
    map_at: Literal["image", "feature"] = "image"
    support_weight: Weight = 1.0
    align_weight: Weight = 0.0
    scale: Factor = 20.0


class FSIL(NearestPrototype):
    """Prototypes of the supports, fused with similar features of the auxiliary set."""

    Options = FSILOptions
    align_corners = False
    inputs = Inputs(multi_way=True, auxiliary=AuxiliarySet.CLASS)
    published = replace(
        NearestPrototype.published,
        backbone_variants={"vgg": WITHOUT_LAST_POOLINGS},
        names={"backbone.": "encoder."},
    )

    def __init__(self, build: BuildArguments, options: FSILOptions) -> None:
        super().__init__(options.scale)
        self.options = options
        self.learning = Learning(backbone=True, auxiliary_gradient=options.auxiliary_gradient)

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = features["signed"]
        encoding = {
            "foreground": self._pool(feature, mask == 1),
            "background": self._pool(feature, mask == 0),
        }
        return encoding | ({"feature": feature} if self.training else {})

    def encode_auxiliary(self, features: Mapping[str, Tensor], label: Tensor | None) -> Encoding:
        positions = features["signed"].flatten(2)  # so that images of different size can be padded
        return {"auxiliary": positions, "auxiliary_inside": torch.ones_like(positions[:, 0])}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        guidance = super().match(query, support)
        if "auxiliary" in support:
            prototype = guidance["prototype"]
            guidance |= self.fuse(prototype, support["auxiliary"], support["auxiliary_inside"])
        return guidance

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        losses = super().losses(prediction, episode, generator)
        if "support_feature" not in prediction.parts:
            return losses
        parts, options = prediction.parts, self.options
        label = episode.support_mask.flatten(0, 2)
        label = label.masked_fill(label > 1, IGNORE)
        scores = score_supports(parts["support_feature"], parts["prototype"], options.scale)
        support = pixel_cross_entropy(scores, label, align_corners=False)
        losses["support"] = options.support_weight * support
        if options.align_weight > 0:
            compared = parts["query_feature"], parts["score"], parts["support_feature"]
            losses["align"] = options.align_weight * alignment_loss(*compared, label, options.scale)
        return losses

    def fuse(self, prototype: Tensor, auxiliary: Tensor, inside: Tensor) -> Encoding:
        """Fuse prototypes with auxiliary images.

        Args:
            prototype: [B,1+N,C], the background's first.
            auxiliary: features of all positions, [B,N,M,C,P].
            inside: 1 for a position, 0 for padding, [B,N,M,P].

        Returns:
            ``prototype``, fused, and ``kept`` [B,N]: the share of auxiliary positions in the last fusion.
        """
        direction = normalize(auxiliary, dim=3, eps=1e-8)
        options, guidance = self.options, {"prototype": prototype}
        for _ in range(options.iterations):
            previous = guidance["prototype"]
            weight, kept = self._weights(direction, inside, previous)
            total = weight.sum((1, 2, 4)).unsqueeze(2)
            mean = torch.einsum("bnmcx,bnmpx->bpc", auxiliary, weight) / (total + _EPSILON)
            base = prototype if options.fuse_from == "initial" else previous
            fused = (base + options.fusion_weight * mean) / (1 + options.fusion_weight)
            guidance = {"prototype": torch.where(total >= _TOO_LITTLE, fused, previous), "kept": kept}
        return guidance

    @in_float32
    def _weights(self, direction: Tensor, inside: Tensor, prototype: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the weight of auxiliary positions, unit vectors [B,N,M,C,P], for prototypes [B,1+N,C].

        Returns:
            Weights [B,N,M,1+N,P], which are 0 except for an image's own way and, with ``update_background``,
            the background; and the share of sufficiently similar positions, [B,N].
        """
        options, ways = self.options, direction.shape[1]
        cosine = torch.einsum("bnmcx,bpc->bnmpx", direction, normalize(prototype, dim=2, eps=1e-8))
        probability = (options.scale * cosine).softmax(3)
        weight = probability if options.weighting == "softmax" else cosine.clamp_min(0)
        near = cosine >= options.threshold if options.distill else torch.ones_like(cosine, dtype=torch.bool)
        counts = near & torch.eye(ways + 1, dtype=torch.bool, device=cosine.device)[1:, None, :, None]
        counts = counts & (inside > 0).unsqueeze(3)
        kept = counts.sum((2, 3, 4)) / inside.sum((2, 3))
        if options.update_background:
            sure = (probability[:, :, :, :1] >= _SURE_BACKGROUND) & (inside > 0).unsqueeze(3)
            counts = torch.cat([sure, counts[:, :, :, 1:]], 3)
            weight = torch.cat([probability[:, :, :, :1], weight[:, :, :, 1:]], 3)
        weight = weight * counts
        return (weight.detach() if options.detach_masks else weight), kept

    def _pool(self, feature: Tensor, mask: Tensor) -> Tensor:
        if self.options.map_at == "image":
            return pool_at_image_resolution(feature, mask)
        weight = resize(mask.float().unsqueeze(1), tuple(feature.shape[-2:]), align_corners=False)
        return masked_average_pool(feature, weight, _EPSILON)
