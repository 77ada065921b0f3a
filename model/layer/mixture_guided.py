"""What PMMs and RPMMs share: features, mixtures of object and background, dense comparison, head."""

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
from fewseg.model.layer.mixture import PrototypeMixture
from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.refinement import HistoryRefinement, published_refinement_names
from fewseg.model.layer.resize import resize_like
from fewseg.model.layer.tiled import DenseComparison
from fewseg.model.options import Channels, Count, Dropout, Factor
from fewseg.model.records import Adaptation, BatchNorm, GroupRule, Inputs, Learning, Published

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
"""Family of backbones -> the role of the features that the published network reads there, and its names.
Other families are read as ResNets are."""


@dataclass(frozen=True)
class MixtureOptions:
    """Switches that PMMs and RPMMs share.

    Attributes:
        em_init: every fit starts from ``fixed`` vectors, or from new random ones ``per_forward`` pass, as in
            published RPMMs, whose results do not repeat.
        em_rounds: of expectation and maximisation.
        kappa: concentration of the components.
        freeze_backbone: whether the backbone neither learns nor gathers statistics. Published: False.
        void_as_background: whether void pixels of the query (255) count as background in the loss, as
            published.
        dropout: share of channels that training drops behind most layers; PMMs drop them in the ASPP only.
        channels: of the reduced features and the prototypes; 256 in the published network.
    """

    em_init: Literal["fixed", "per_forward"] = "fixed"
    em_rounds: Count = 10
    kappa: Factor = 20.0
    freeze_backbone: bool = False
    void_as_background: bool = False
    dropout: Dropout = 0.5
    channels: Channels = 256


class MixtureGuided(MetaLearner):
    """A meta-learner guided by mixtures of object and background prototypes.

    The support branch gets no gradient: the prototypes are constants.

    Args:
        build, options: what it is built for, and its options.
        components: prototypes of each mixture that is fitted.
        normalise: whether BatchNorm, and no dropout, follows the comparison and the layer after the ASPP.
        joined: channels of what ``match_maps`` convolves.
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
        joined: int,
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
        role, names = _NETWORKS.get(backbone.family, ("middle", {}))
        self.inputs = Inputs(support_first=True).reading(role)
        self.published = replace(self.published, names={**_PUBLISHED_HEADS, **names})
        inputs = backbone.spec.channels(role)
        self.project = nn.Conv2d(inputs, inputs, 3, padding=1) if role == "high" else None
        dropout = 0.0 if normalise else options.dropout
        self.reduce = activated(inputs, channels, dilation=2, normalise=True)
        self.comparison = DenseComparison(channels, normalise=normalise, dropout=dropout)
        self.match_maps = activated(joined, channels, normalise=normalise, dropout=dropout)
        self.refine = HistoryRefinement(channels, normalise=normalise, dropout=options.dropout)
        self.mixture = PrototypeMixture(
            channels,
            components,
            rounds=options.em_rounds,
            concentration=options.kappa,
            redraw=options.em_init == "per_forward",
        )

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        feature = self._reduced(features)
        return {"feature": feature, "compared": self.comparison.conv.over_maps(feature)}

    @torch.no_grad()
    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = self._reduced(features)
        return {"feature": feature, "inside": resize_like(foreground(mask), feature)}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        feature, inside = (support[name].transpose(1, 2).flatten(2) for name in ("feature", "inside"))
        within, without = self.mixture(feature * inside, feature * (1 - inside))
        return {
            "object": torch.cat(within, 1),
            "background": torch.cat(without, 1),
            "area": support["inside"].sum((2, 3, 4)),  # [B,K]
        }

    def places(self) -> list[slice]:
        """Return where the prototypes of every mixture lie among all of them."""
        ends = [sum(self.components[: number + 1]) for number in range(len(self.components))]
        return [slice(end - count, end) for end, count in zip(ends, self.components, strict=True)]

    def _reduced(self, features: Mapping[str, Tensor]) -> Tensor:
        if self.project is not None:
            return self.reduce(self.project(features["high"]))
        return self.reduce(middle_features(features, SHALLOWER_FIRST))
