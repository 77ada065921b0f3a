"""PL: N. Dong, E. P. Xing, "Few-Shot Semantic Segmentation with Prototype Learning", BMVC 2018.

No code was published, and the public description leaves many details open. In this file:

*Certain* (abstract, surveys, tables of later papers): a prototype learner embeds (image, mask) pairs by
features and a global average; a way's prototype is the mean over its supports; the learner is trained to
classify the ways by distances. A segmentor adds each prototype to its query features; a 1x1 convolution and
upsampling give a map per way. The maps are fused with weights that depend on the distance between the query,
masked by a map, and the way's prototype. Both parts are trained alternately, with the ways in random order.

*Probable*: the background is a way of its own, maps are sigmoids, both networks are VGG16 with ImageNet
weights.

*Our proposal*: everything else. Where the mask enters, the distance, the activations, the softmax over the
ways, the form of the losses, both heads, the depth of the networks and every ResNet.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import pad

from fewseg.model import waiting
from fewseg.model.backbone.vgg import WITHOUT_LAST_POOLINGS
from fewseg.model.contract import Backbone, BuildArguments, MetaLearner
from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.resize import resize, resize_like
from fewseg.model.meta.plnet.map_head import MapHead
from fewseg.model.meta.plnet.pair_embedding import Distance, MaskMode, PairEmbedding, closeness
from fewseg.model.options import Between, Channels, Count
from fewseg.model.records import (
    IMAGE_FEATURE,
    Adaptation,
    GroupRule,
    Inputs,
    Learning,
    Map,
    MapKind,
    Published,
)

_SCORE_EPSILON = 1e-6
_WAYS = ("background", "object")


@dataclass(frozen=True)
class PLNetOptions:
    """Options of PL; all defaults except ``use_segmentor`` and ``permutation`` are our proposals.

    Attributes:
        use_segmentor: published ablation; with False, pixels take the nearest prototype ("PL" alone).
        permutation: whether the ways are permuted at random in training ("PT"), which has no effect on a
            ``shared`` head.
        segment_head: ``shared`` classifies every way separately, ``joint`` all of them together, in order.
        ways: number of ways of the episodes, for a ``joint`` head.
        background_prototype: whether the background has a prototype; otherwise its map is a constant 0.5.
        mask_mode: where the mask enters the learner: ``late`` weights the features, ``early`` multiplies the
            image, ``channel`` adds a fourth channel to it.
        distance: of embeddings: ``euclidean``, the squared distance per channel, or ``cosine`` times 20.
        signed_prototypes: whether the learner has no last activation, so that prototypes may be negative.
        activate_sum: whether an activation follows the sum of feature and prototype. Without one, a prototype
            only adds one constant per way.
        fusion_block: whether a 3x3 convolution and an activation precede the classifier.
        joint_seg_grad: whether the segmentation loss also trains the learner.
        min_positions: number of positions of the feature grid that a way must cover in the query for its
            embedding to be classified.
        channels: channels of features and prototypes.
    """

    use_segmentor: bool = True
    permutation: bool = True
    segment_head: Literal["shared", "joint"] = "shared"
    ways: Count = 1
    background_prototype: bool = True
    mask_mode: MaskMode = "late"
    distance: Distance = "euclidean"
    signed_prototypes: bool = True
    activate_sum: bool = True
    fusion_block: bool = False
    joint_seg_grad: bool = False
    min_positions: Annotated[float, Between(0, 1e6)] = 32.0
    channels: Channels = 512

    def __post_init__(self) -> None:
        if self.use_segmentor:
            return
        if self.mask_mode != "late" or not self.background_prototype:
            raise ValueError(
                "use_segmentor: False takes the nearest prototype per pixel, which needs mask_mode: late and "
                "background_prototype: True"
            )


class PLNet(MetaLearner):
    """Prototypes by a separate learner, one map per way, and the fusion of the maps."""

    Options = PLNetOptions
    inputs = Inputs(query=(IMAGE_FEATURE,), support=(IMAGE_FEATURE,), multi_way=True)
    learning = Learning(
        backbone=True,
        group_rules={"learner": GroupRule(0.1)},
        alternating=(("classification",), ("main",)),
    )
    adaptation = Adaptation(blended=("prototype",), fixed=("learner",))
    published = Published(
        backbone_variants={"vgg": WITHOUT_LAST_POOLINGS, "resnet": {"last_stage": "layer3"}},
        names={"backbone.": "segmentor.backbone.", "head": "segmentor.head"},
        maps=(
            Map("map_logits", "map of the way", MapKind.LOGITS, (0, 1), _WAYS, weights="fusion_weights"),
            Map("map_logits", "assignment to the ways", MapKind.ASSIGNMENT, names=_WAYS),
        ),
    )

    def __init__(self, build: BuildArguments, options: PLNetOptions) -> None:
        super().__init__()
        self.options = options
        backbone, channels = build.backbone, options.channels
        first = int(options.background_prototype)
        self.learner = PairEmbedding(backbone, channels, options.mask_mode, signed=options.signed_prototypes)
        self.head: MapHead | None = None
        if options.use_segmentor:
            self.feature = self.learner.feature
            self.inputs = replace(self.inputs, query=(self.feature, IMAGE_FEATURE))
            self.head = MapHead(
                copy.deepcopy(self.learner.project),  # same initial weights, as the outputs are added
                channels,
                joint_maps=first + options.ways if options.segment_head == "joint" else 0,
                activate=options.activate_sum,
                block=options.fusion_block,
            )
        else:
            self.learning = replace(self.learning, backbone=False, alternating=())

    def initialise(self, backbone: Backbone, entries: Mapping[str, Tensor]) -> None:
        self.learner.initialise(backbone)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {
            "image_feature": self.learner.image_features(features[IMAGE_FEATURE]),
            **self._query_feature(features),
        }

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        masks = [mask == 0, mask == 1] if self.options.background_prototype else [mask == 1]
        image_feature = self.learner.image_features(features[IMAGE_FEATURE])
        return {"prototype": self.learner(image_feature, torch.stack(masks, 1).to(image_feature))}

    def trainable_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return self._query_feature(features)

    def trainable_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        return {}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        """Average over the shots, and for the background over the ways too -> prototypes [B,P,C]."""
        prototype = support["prototype"]
        objects = prototype[..., -1, :].mean(2)
        if not self.options.background_prototype:
            return {"prototype": objects}
        background = prototype[..., 0, :].mean((1, 2))
        return {"prototype": torch.cat([background.unsqueeze(1), objects], 1)}

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        image_feature, prototype = query["image_feature"], guidance["prototype"]
        parts = dict(guidance) | ({"image_feature": image_feature} if self.training else {})
        if not self.options.joint_seg_grad:
            image_feature, prototype = image_feature.detach(), prototype.detach()
        if self.head is None:
            pixels = image_feature.permute(0, 2, 3, 1)
            scores = [closeness(pixels, p[:, None, None], self.options.distance) for p in prototype.unbind(1)]
            return Prediction(torch.stack(scores, 1), parts)
        parts["map_logits"] = self._maps(self.head, query["feature"], prototype)
        parts["fusion_weights"] = self._fusion_weights(image_feature, parts["map_logits"], prototype)
        return Prediction(self._fuse(parts["map_logits"], parts["fusion_weights"]), parts)

    def upsample(self, prediction: Prediction, size: tuple[int, int]) -> Tensor:
        parts = prediction.parts
        if self.head is None:
            return super().upsample(prediction, size)
        return self._fuse(resize(parts["map_logits"], size), parts["fusion_weights"])

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        losses = super().losses(prediction, episode, generator)
        if "image_feature" in prediction.parts:
            losses["classification"] = self._classification(prediction.parts, episode.ground_truth)
        return losses

    def _query_feature(self, features: Mapping[str, Tensor]) -> Encoding:
        return {} if self.head is None else {"feature": self.head.project(features[self.feature])}

    def _maps(self, head: MapHead, feature: Tensor, prototype: Tensor) -> Tensor:
        """Return the logits of the ways' maps [B,P,h,w]; a joint head reads the ways in random order.

        The logits are put back in order, which is equivalent to permuting the labels.
        """
        if not (self.training and self.options.permutation and head.joint_maps):
            return head(feature, prototype)
        first, count = int(self.options.background_prototype), prototype.shape[1]
        order = torch.cat([torch.arange(first), first + torch.randperm(count - first)])
        order = waiting.sent(order, prototype.device)
        return head(feature, prototype[:, order])[:, order.argsort()]

    def _fusion_weights(self, image_feature: Tensor, map_logits: Tensor, prototype: Tensor) -> Tensor:
        """Return weights [B,P] by the closeness of the query, masked by each map, to the way's prototype.

        With ``mask_mode: late``, maps need not be upsampled first, because downsampling them to the feature
        grid again would give the same result (exactly so for sides of 8n + 1).
        """
        maps = resize_like(map_logits, image_feature).sigmoid()
        if self.options.joint_seg_grad:
            vectors = self.learner(image_feature, maps)
        else:  # gradients reach the maps through the learner, but not the learner's own parameters
            fixed = {name: parameter.detach() for name, parameter in self.learner.named_parameters()}
            vectors = functional_call(self.learner, fixed, (image_feature, maps))
        return closeness(vectors, prototype, self.options.distance).softmax(1)

    def _fuse(self, map_logits: Tensor, weights: Tensor) -> Tensor:
        """Return the logarithms of the scores [B,1+N,h,w]: maps [B,P,h,w] times weights [B,P]."""
        scores = weights.shape[1] * weights[..., None, None] * map_logits.sigmoid()
        if not self.options.background_prototype:
            scores = pad(scores, (0, 0, 0, 0, 1, 0), value=0.5)
        return (scores + _SCORE_EPSILON).log()

    def _classification(self, parts: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Return the classification loss of the query, masked by the true mask of every way.

        Ways that cover too few positions of the query are ignored; if no way is left, the loss is 0.
        """
        image_feature, prototype = parts["image_feature"], parts["prototype"]
        first, count = 1 - int(self.options.background_prototype), prototype.shape[1]
        ways = torch.arange(first, first + count, device=label.device).view(1, -1, 1, 1)
        masks = (label.unsqueeze(1) == ways).to(image_feature)
        shown = (
            resize_like(masks, parts.get("map_logits", image_feature)).sum((2, 3))
            >= self.options.min_positions
        )
        vectors = self.learner(image_feature, masks).unsqueeze(2)
        scores = closeness(vectors, prototype.unsqueeze(1), self.options.distance)
        loss = -scores.log_softmax(2).diagonal(dim1=1, dim2=2)
        return (loss * shown).sum() / shown.sum().clamp_min(1)
