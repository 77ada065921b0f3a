"""MSANet: E. Iqbal et al., "MSANet: Multi-Similarity and Attention Guidance for Few-Shot Segmentation", 2022.

arXiv 2206.09667; IEEE Open Journal of the Computer Society 6, 2025. It adds two kinds of guidance to BAM: the
similarity of each query position to the support object in every block of the backbone, and the support
feature gated by a summary of its object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fewseg.model.backbone.contract import LEVELS
from fewseg.model.contract import Backbone, BuildArguments, MetaLearner
from fewseg.model.encoding import GRAM, SHOT_WEIGHTS, Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.block import reduction
from fewseg.model.layer.decoder import ASPPDecoder, published_decoder_names
from fewseg.model.layer.features import middle_features
from fewseg.model.layer.gram import gram_matrix
from fewseg.model.layer.pooling import foreground, gather_positions
from fewseg.model.layer.prior import PRIOR_MAP, object_features, shot_priors
from fewseg.model.layer.resize import resize, resize_like
from fewseg.model.layer.retain_and_recover import (
    ACTIVATION_MAPS,
    RetainAndRecover,
    RetainAndRecoverOptions,
    profile_transforms,
)
from fewseg.model.layer.shot_weights import SHOT_BOUND, RankedShotWeightOptions, ShotWeights, fuse_shots
from fewseg.model.meta.msanet.multi_similarity import (
    SimilarityMemory,
    confident_positions,
    mean_similarity,
    normalise,
)
from fewseg.model.options import Channels
from fewseg.model.records import Adaptation, Inputs, Learning, Map, MapKind, Published, SameSize


@dataclass(frozen=True)
class MSANetOptions(RankedShotWeightOptions, RetainAndRecoverOptions):
    """Options of MSANet.

    Attributes:
        kshot_trans_dim, shot_weights, kshot_unsort: see ``RankedShotWeightOptions``.
        unidirectional_pooling, error_prone_region, adaptive_integration: see ``RetainAndRecoverOptions``.
        profile_softmax, error_prone_weight: see ``RetainAndRecoverOptions``.
        similarity: whether the similarities of all blocks guide the query.
        attention: whether the gated support feature guides the query.
        vgg_corr2: the supports that VGG16's shallowest similarities come from: only the ``last``, as
            published, or the ``mean`` over all, as for all other similarities.
        channels: width of the decoder; 256 in the published network.
        similarity_channels: channels of the fused similarities; 64 in the published network.
    """

    similarity: bool = True
    attention: bool = True
    vgg_corr2: Literal["last", "mean"] = "last"
    channels: Channels = 256
    similarity_channels: Channels = 64


@dataclass(frozen=True)
class Taps:
    """The features whose similarities are computed.

    Attributes:
        first: the feature before the shallowest tap; the mask is downsampled to its grid first.
        shallow, deep: names of the taps, shallow to deep. They are separate because the published code takes
            VGG16's shallow similarities from the last support only.
    """

    first: str
    shallow: tuple[str, ...]
    deep: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return self.shallow + self.deep

    @classmethod
    def of(cls, backbone: Backbone) -> Taps:
        """Return the blocks of all levels that the backbone declares."""
        shallow, *deep = backbone.spec.levels
        names = list(backbone.spec.features)
        before = max(0, names.index(shallow[0]) - 1)
        return cls(names[before], shallow, tuple(name for level in deep for name in level))


class ChannelAttention(nn.Module):
    """Gate the channels of a support feature by its mean over the object (section 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1),
            nn.Dropout(0.5),
            nn.Sigmoid(),
        )

    def forward(self, feature: Tensor, mask: Tensor) -> Tensor:
        """Return the support's ``feature`` [B,C,h,w] with its channels gated by the object's mean feature.

        The mean of the feature under ``mask`` [B,1,H,W] is taken over the whole map, so small objects give
        small values.
        """
        inside = interpolate(mask, feature.shape[-2:], mode="nearest")
        return self.gate((inside * feature).mean((2, 3), keepdim=True)) * feature


class MSANet(MetaLearner):
    """Prototype, prior, multi-similarity and attention guide an ASPP decoder.

    Without multi-similarity and attention it is BAM's meta-learner, except that the last stage sees the whole
    support, and for the order of the weights of several supports (``kshot_unsort``). RARE's strategies can be
    used around its merge, which is our composition.
    """

    Options = MSANetOptions
    inputs = Inputs(same_size=SameSize.ALL).reading("middle", "high", LEVELS)
    learning = Learning(shot_bound=SHOT_BOUND)
    published = Published(
        base="pspnet",
        ensemble="bam",
        names={
            "query_reduction": "down_query",
            "support_reduction": "down_supp",
            "merge": "init_merge",
            "attention": "gam",
            "similarity_fusion": "hyper_final",
            "shot_weights.network": "kshot_rw",
            **published_decoder_names("decoder", "_meta"),
        },
        maps=(PRIOR_MAP, Map("similarity", "mean similarity of all blocks", MapKind.MEAN)),
    )

    def __init__(self, build: BuildArguments, options: MSANetOptions) -> None:
        super().__init__()
        width, inputs = options.channels, build.backbone.spec.channels("middle")
        self.options = options
        self.taps = Taps.of(build.backbone) if options.similarity else Taps("", (), ())
        self.low_feature = build.low_feature
        self.inputs = self._reading()
        self.last_shot_alone = {"vgg": options.vgg_corr2}.get(build.backbone.family) == "last"
        self.query_reduction = reduction(inputs, width, dropout=0.5)
        self.support_reduction = reduction(inputs, width, dropout=0.5)
        similarities = options.similarity_channels if options.similarity else 0
        guides = width + similarities + 1 + (width if options.attention else 0) + options.activation_maps
        self.merge = reduction(width + guides, width)
        self.decoder = ASPPDecoder(width)
        self.attention = ChannelAttention(width) if options.attention else None
        self.similarity_fusion = _fusion(len(self.taps.all), similarities) if options.similarity else None
        self.shot_weights = ShotWeights(build, options)
        self.error_prone_merge = reduction(width + guides, width) if options.error_prone_region else None
        self.rows, self.columns = profile_transforms(width, options)
        self.strategies = RetainAndRecover(options, self.rows, self.columns)
        parts = {"multi_similarity": options.similarity, "prior": True, "attention": options.attention}
        if options.error_prone_region:
            self.published = replace(self.published, maps=(*self.published.maps, *ACTIVATION_MAPS))
        self.adaptation = Adaptation(
            blended=(*self.strategies.blended, *(name for name, used in parts.items() if used)),
            fixed=("attention", "similarity_fusion"),
        )

    def _reading(self) -> Inputs:
        """Return the features that it reads: all levels and the one before them only for the similarities."""
        if not self.options.similarity:
            return self.inputs.reading("middle", "high", self.low_feature)
        read = (*self.inputs.query, self.low_feature)
        return replace(self.inputs, query=read, support=(*read, self.taps.first))

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {
            **self.trainable_query(features),
            "prior_query": features["high"],
            **{f"tap {name}": normalise(features[name]) for name in self.taps.all},
            GRAM: gram_matrix(features[self.low_feature]),  # on its own grid, unlike BAM's
        }

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        inside = foreground(mask)
        return {
            **self.trainable_support(features, mask),
            "prior_object": object_features(features["high"], inside),
            **(self._objects(features, inside) if self.options.similarity else {}),
            GRAM: gram_matrix(features[self.low_feature]),  # on its own grid, unlike BAM's
        }

    def trainable_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {"feature": self.query_reduction(middle_features(features))}

    def trainable_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature, inside = self.support_reduction(middle_features(features)), foreground(mask)
        encoding = self.strategies.encode(feature, inside)
        if self.attention is not None:
            encoding["attention"] = self.attention(feature, inside)
        return encoding

    def comparisons(
        self, query: Encoding, support: Encoding, memory: dict[str, Any] | None = None
    ) -> Encoding:
        compared = {"shot_prior": shot_priors(query["prior_query"], support["prior_object"])}
        if self.options.similarity:
            compared["shot_similarity"] = self._similarity(query, support, memory)
        return compared

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        weights = self.shot_weights(query, support)
        compared = support if "shot_prior" in support else self.comparisons(query, support)
        guidance = {
            **self.strategies.guide(query["feature"], support, partial(fuse_shots, weights=weights)),
            "prior": fuse_shots(compared["shot_prior"], weights),
            SHOT_WEIGHTS: weights,
        }
        if self.similarity_fusion is not None:
            guidance["similarity"] = self._fuse(compared["shot_similarity"])
            guidance["multi_similarity"] = self.similarity_fusion(guidance["similarity"])
        if self.attention is not None:
            guidance["attention"] = support["attention"].mean(1)
        return guidance

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature = query["feature"]
        maps = [
            *([guidance["multi_similarity"]] if self.options.similarity else []),
            resize_like(guidance["prior"], feature),
            *([guidance["attention"]] if self.options.attention else []),
        ]
        merges = (self.merge, self.error_prone_merge)
        merged = self.strategies.merge(merges, feature, guidance, *maps)
        return Prediction(self.decoder(merged), dict(guidance))

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        losses = super().losses(prediction, episode, generator)
        return {**losses, **self.strategies.losses(prediction, episode)}

    def _objects(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        """Gather the object's unit vectors [B,C,P] at every tap, and count them [B,taps].

        The mask is downsampled step by step, from each grid to the next, beginning with twice the first grid.
        """
        first = features[self.taps.first]
        mask = resize(mask, (2 * first.shape[-2], 2 * first.shape[-1]))
        mask = resize_like(mask, first)
        objects: Encoding = {}
        counts = []
        for name in self.taps.all:
            mask = resize_like(mask, features[name])
            inside = confident_positions(mask)
            weighted = gather_positions(features[name], inside) * gather_positions(mask, inside)
            objects[f"tap {name}"] = normalise(weighted)
            counts.append(inside.flatten(1).sum(1).clamp_min(1))
        return {"counts": torch.stack(counts, 1), **objects}

    def _similarity(self, query: Encoding, support: Encoding, memory: dict[str, Any] | None = None) -> Tensor:
        """Return one map per support and tap [B,K,taps,h,w] on the grid of the query feature."""
        maps = []
        for index, name in enumerate(self.taps.all):
            counts = support["counts"][:, :, index]
            earlier = None if memory is None else memory.setdefault(name, SimilarityMemory())
            similarity = mean_similarity(query[f"tap {name}"], support[f"tap {name}"], counts, earlier)
            maps.append(resize_like(similarity, query["feature"]))
        return torch.stack(maps, 2)

    def _fuse(self, similarity: Tensor) -> Tensor:
        """Average [B,K,taps,h,w] over the supports; see ``vgg_corr2``."""
        fused = similarity.mean(1)
        if self.last_shot_alone:
            shallow = len(self.taps.shallow)
            fused = torch.cat([similarity[:, -1, :shallow], fused[:, shallow:]], 1)
        return fused


def _fusion(inputs: int, outputs: int) -> nn.Sequential:
    """Return the layers that fuse the similarities of all taps."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
