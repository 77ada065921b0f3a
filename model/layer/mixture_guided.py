"""The common part of PMMs and RPMMs: features, mixtures of object and background, dense comparison, head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from fewseg.model.backbone.resnet import DEEPLAB
from fewseg.model.backbone.vgg import WITHOUT_LAST_STRIDES
from fewseg.model.contract import BuildArguments, MetaLearner
from fewseg.model.encoding import Encoding
from fewseg.model.layer.block import activated
from fewseg.model.layer.features import SHALLOWER_FIRST, middle_features
from fewseg.model.layer.mixture import PrototypeMixture, mixture_posterior, object_posterior
from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.refinement import HistoryRefinement, published_refinement_names
from fewseg.model.layer.resize import resize_like
from fewseg.model.layer.tiled import DenseComparison
from fewseg.model.options import Channels, Count, Dropout, Factor
from fewseg.model.records import (
    Adaptation,
    BatchNorm,
    GroupRule,
    Inputs,
    Learning,
    Map,
    MapKind,
    Published,
    SameSize,
)

_PUBLISHED_HEADS: Mapping[str, str] = {
    "reduce": "layer5",
    "comparison.conv": "layer55.0",
    "comparison.finish.0": "layer55.1",
    "match_maps": "layer56",
    **published_refinement_names("refine", "layer6.layer6_"),
}
_NETWORKS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "resnet": (
        "middle",
        {
            "backbone.": "model_res.",
            "backbone.layer0.0": "model_res.conv1",
            "backbone.layer0.1": "model_res.bn1",
        },
    ),
    "vgg": (
        "high",
        {
            **{f"backbone.layer{n}": f"model_backbone.features_{n + 1}" for n in range(5)},
            "project": "model_backbone.cls.0",
        },
    ),
}
"""Backbone family -> role of the features that the published network reads, and prefix -> published prefix of
its parameters. Other families are read as ResNets are."""


@dataclass(frozen=True)
class MixtureOptions:
    """Options that PMMs and RPMMs share.

    Attributes:
        em_init: initial vectors of expectation maximisation (EM): always the same (``fixed``), or drawn in
            every pass (``per_forward``), as in published RPMMs, whose results are not reproducible.
        em_rounds: number of EM iterations.
        kappa: concentration of the components.
        freeze_backbone: whether weights and BatchNorm statistics of the backbone stay unchanged in training.
            Published: False.
        void_as_background: whether void pixels of the query (255) count as background in the loss.
            Published: True.
        p_match: whether the query is compared with the prototypes of the object (P-Match). If not, the
            query's features go to the head without a comparison.
        p_conv: whether the prototypes of object and background classify every position of the query
            (P-Conv). If not, the mixture is fitted to the foreground only.
        dropout: share of channels that are dropped in training after most layers; PMMs drop them in the ASPP
            only.
        channels: channels of the reduced features and the prototypes; 256 in the published network.
    """

    em_init: Literal["fixed", "per_forward"] = "fixed"
    em_rounds: Count = 10
    kappa: Factor = 20.0
    freeze_backbone: bool = False
    void_as_background: bool = False
    p_match: bool = True
    p_conv: bool = True
    dropout: Dropout = 0.5
    channels: Channels = 256

    def __post_init__(self) -> None:
        if not self.p_match and not self.p_conv:
            raise ValueError(
                "p_match and p_conv are both off, so the supports would have no influence; leave one on"
            )


class MixtureGuided(MetaLearner):
    """A meta-learner guided by mixtures of object and background prototypes.

    The support branch gets no gradient, so the prototypes are constants.

    Args:
        build: arguments of the model.
        options: the method's options.
        components: number of prototypes of each mixture that is fitted.
        normalise: whether BatchNorm, instead of dropout, follows the comparison and the layer after the ASPP.
        joins_posterior: whether ``match_maps`` reads the classification by P-Conv besides the comparison.
        reads_history: whether the head reads a classification or prediction.
    """

    align_corners = False
    adaptation = Adaptation(blended=("object", "background"))
    published = Published(backbone_variants={"resnet": DEEPLAB, "vgg": WITHOUT_LAST_STRIDES})

    def __init__(
        self,
        build: BuildArguments,
        options: MixtureOptions,
        components: tuple[int, ...],
        *,
        normalise: bool,
        joins_posterior: bool,
        reads_history: bool,
    ) -> None:
        super().__init__()
        backbone, channels = build.backbone, options.channels
        self.learning = Learning(
            backbone=not options.freeze_backbone,
            backbone_affine=False,
            batch_norm=BatchNorm.STORED_IN_BACKBONE if options.freeze_backbone else BatchNorm.BATCH,
            separate_biases=True,
            group_rules={
                f"{group}.bias": GroupRule(rate=2.0)
                for group in ("backbone", "project", "reduce", "comparison", "match_maps", "refine")
            },
        )
        self.options, self.components = options, components
        if not options.p_conv:
            self.adaptation = Adaptation(blended=("object",))
        role, names = _NETWORKS.get(backbone.family, ("middle", {}))
        self.inputs = Inputs(support_first=True, same_size=SameSize.SUPPORTS).reading(role)
        self.published = replace(self.published, names={**_PUBLISHED_HEADS, **names}, maps=_maps(components))
        inputs = backbone.spec.channels(role)
        self.project = nn.Conv2d(inputs, inputs, 3, padding=1) if role == "high" else None
        dropout = 0.0 if normalise else options.dropout
        self.reduce = activated(inputs, channels, dilation=2, normalise=True)
        self.comparison = (
            DenseComparison(channels, normalise=normalise, dropout=dropout) if options.p_match else None
        )
        self.match_maps = activated(
            channels + 2 * joins_posterior, channels, normalise=normalise, dropout=dropout
        )
        self.refine = HistoryRefinement(
            channels, history=reads_history, normalise=normalise, dropout=options.dropout
        )
        self.mixture = PrototypeMixture(
            channels,
            components,
            rounds=options.em_rounds,
            concentration=options.kappa,
            redraw=options.em_init == "per_forward",
        )

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        feature = self._reduced(features)
        if self.comparison is None:
            return {"feature": feature}
        return {"feature": feature, "compared": self.comparison.conv.over_maps(feature)}

    @torch.no_grad()
    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = self._reduced(features)
        return {"feature": feature, "inside": resize_like(foreground(mask), feature)}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        feature, inside = (support[name].transpose(1, 2).flatten(2) for name in ("feature", "inside"))
        fitted = {"object": feature * inside}
        if self.options.p_conv:
            fitted["background"] = feature * (1 - inside)
        mixtures = zip(fitted, self.mixture(*fitted.values()), strict=True)
        prototypes = {name: torch.cat(mixture, 1) for name, mixture in mixtures}
        return {**prototypes, "area": support["inside"].sum((2, 3, 4))}  # area [B,K]

    def compare(self, query: Encoding, guidance: Encoding) -> list[Tensor]:
        """Return the sum of the comparisons with the object's prototypes, for every mixture, [B,C,h,w].

        Without P-Match they are the query's features.
        """
        if self.comparison is None:
            return [query["feature"]] * len(self.components)
        compared = self.comparison(query["compared"], guidance["object"])
        return [sum(others, first) for first, *others in (compared[place] for place in self.places())]

    def classify(self, query: Encoding, guidance: Encoding) -> list[Tensor | None]:
        """Return the probabilities of background and object by every mixture, [B,2,h,w].

        Without P-Conv there are none.
        """
        if not self.options.p_conv:
            return [None] * len(self.components)
        of_object, of_background = guidance["object"], guidance["background"]
        return [
            object_posterior(query["feature"], of_object[:, place], of_background[:, place])
            for place in self.places()
        ]

    def assignments(self, query: Encoding, guidance: Encoding) -> Encoding:
        """Return the probabilities of the prototypes at every position for figures, [B,2k,h,w] per mixture.

        There are none in training or without prototypes of the background.
        """
        if self.training or "background" not in guidance:
            return {}
        return {
            f"assignment{index}": mixture_posterior(
                query["feature"], guidance["object"][:, place], guidance["background"][:, place]
            )
            for index, place in enumerate(self.places())
        }

    def places(self) -> list[slice]:
        """Return the position of every mixture's prototypes among all prototypes."""
        ends = [sum(self.components[: index + 1]) for index in range(len(self.components))]
        return [slice(end - count, end) for end, count in zip(ends, self.components, strict=True)]

    def _reduced(self, features: Mapping[str, Tensor]) -> Tensor:
        if self.project is not None:
            return self.reduce(self.project(features["high"]))
        return self.reduce(middle_features(features, SHALLOWER_FIRST))


def _maps(components: tuple[int, ...]) -> tuple[Map, ...]:
    """Return the maps of mixtures of so many prototypes each."""
    maps = []
    for index, count in enumerate(components):
        regions = [
            [f"{region} {number + 1}" for number in range(count)] for region in ("object", "background")
        ]
        title = f"assignment to {count} + {count} prototypes"
        names = tuple(name for region in regions for name in region)
        maps.append(Map(f"assignment{index}", title, MapKind.ASSIGNMENT, names=names))
    stages = (Map("stage#", "foreground after stage #", MapKind.FOREGROUND, (0, 1)),)
    return (*maps, *(stages if len(components) > 1 else ()))
