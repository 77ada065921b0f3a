"""MIANet: Y. Yang, Q. Chen, Y. Feng, T. Huang, "MIANet: Aggregating Unbiased Instance and General Information
for Few-Shot Semantic Segmentation", CVPR 2023.

The prototype of a few supports is biased, so it is replaced by a general prototype, which is generated from
the class's word vector and the supports' prototype. A parameter-free hierarchy of priors and PFENet's decoder
complete the network. The class of the target is an input in testing too, so results are not comparable with
those of purely visual methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fewseg.model import waiting
from fewseg.model.contract import BuildArguments, MetaLearner
from fewseg.model.encoding import CLASS_ID, Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.block import reduction
from fewseg.model.layer.enrichment import (
    INNER_MAP,
    PUBLISHED_NAMES,
    EnrichmentDecoder,
    check_scales,
    enrichment_losses,
    grid_sizes,
)
from fewseg.model.layer.features import middle_features
from fewseg.model.layer.pooling import foreground, masked_average_pool
from fewseg.model.layer.prior import object_features, shot_priors
from fewseg.model.layer.resize import resize, resize_like
from fewseg.model.meta.mianet.general_information import (
    generator_layers,
    local_feature_layers,
    triplet_loss,
)
from fewseg.model.meta.mianet.hierarchical_prior import hierarchical_prior, support_means
from fewseg.model.options import Channels, Factor, Scales, Share, Weight
from fewseg.model.records import Adaptation, Inputs, Learning, Map, Published, TextInput


@dataclass(frozen=True, eq=False)
class MIANetOptions:
    """Options of MIANet.

    Attributes:
        general_information: whether the general information module generates the prototype. If not, the
            supports' own prototype, the instance information, takes its place, there is no triplet loss, and
            no word vectors are read.
        embeddings: word vectors, float [1 + classes, width], row 0 the background's; in a config the path of
            a table, ``hashed``, or a list of these, whose vectors are concatenated. A checkpoint does not
            contain them and must be used with the vectors that it was trained with.
        prior: the prior of every scale: ``hierarchical``, each level weighted by the one before, as
            published; ``single``, PFENet's prior at all scales; or ``none``.
        ppm_scales: grids of priors and decoder, finest first: sides in positions, or fractions of the query's
            feature grid. Published for 473 px: 60, 30, 15, 8. The default, the grid of the shallower middle
            feature and three halvings, rounded up, gives the same.
        aux_weight: weight of the inner losses.
        triplet_weight: weight of the triplet loss; 0 for none.
        triplet_margin: margin of the triplet loss.
        fix_bn: whether the frozen backbone normalises with its stored statistics in training. Published:
            False, so it normalises by the batch, and its statistics drift away from the pretrained ones.
        object_threshold: value of the resized mask from which a local feature belongs to the object in the
            triplet loss. Published: 1.0, which excludes positions that rounding leaves just below 1; 0.999
            includes them.
        channels: width of the decoder; 256 in the published network.
    """

    general_information: bool = True
    embeddings: Tensor | None = None
    prior: Literal["hierarchical", "single", "none"] = "hierarchical"
    ppm_scales: Scales | None = None
    aux_weight: Weight = 1.0
    triplet_weight: Weight = 1.0
    triplet_margin: Factor = 0.5
    fix_bn: bool = True
    object_threshold: Share = 1.0
    channels: Channels = 256

    def __post_init__(self) -> None:
        if self.ppm_scales is not None:
            check_scales(self.ppm_scales)
        if not self.general_information:
            return
        if self.embeddings is None:
            raise ValueError(
                "mianet needs word vectors: set embeddings, in a config the path of a table or hashed, "
                "in code a tensor [1 + classes, width]"
            )
        if self.embeddings.ndim != 2 or len(self.embeddings) < 2 or not self.embeddings.shape[1]:
            raise ValueError(
                "embeddings of mianet must be [1 + classes, width], one word vector per row and row 0 the "
                f"background's; got {list(self.embeddings.shape)}"
            )


class MIANet(MetaLearner):
    """General prototype from words and supports, hierarchical priors, feature enrichment.

    The published code reads only the first shot. Our extension to several shots averages prototypes, priors
    and triplet losses over the shots.
    """

    Options = MIANetOptions
    embeddings: Tensor | None
    inputs = Inputs(text=TextInput.WORD_VECTORS).reading("middle", "high")
    published = Published(
        names={
            "reduction": "down_features",
            "local_features": "LFG",
            "generator": "GIG.model",
            **PUBLISHED_NAMES,
        },
        extra=("pspnet.",),  # the base learner; the method uses only its backbone
        maps=(Map("prior#", "prior at scale #", limits=(0, 1)), INNER_MAP),
    )

    def __init__(self, build: BuildArguments, options: MIANetOptions) -> None:
        super().__init__()
        self.options = options
        self.learning = Learning().with_stored_statistics(options.fix_bn)
        self.scales = options.ppm_scales or _halved(build)
        self.priors = tuple(f"prior{level}" for level in range(len(self.scales)))
        if options.prior == "none":
            self.priors = ()
            self.inputs = self.inputs.reading("middle")
        self.adaptation = Adaptation(blended=("prototype", *self.priors))
        width = options.channels
        self.reduction = reduction(build.backbone.spec.channels("middle"), width, dropout=0.5)
        words = options.embeddings if options.general_information else None
        if words is None:
            self.inputs = replace(self.inputs, text=TextInput.NONE)
        learns_triplets = words is not None and options.triplet_weight > 0
        self.local_features = local_feature_layers(width) if learns_triplets else None
        self.generator = None if words is None else generator_layers(words.shape[1] + width, width)
        self.decoder = EnrichmentDecoder(width, len(self.scales), maps=min(1, len(self.priors)))
        self.register_buffer("embeddings", None if words is None else words.float().clone(), persistent=False)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        encoding = {"feature": self.reduction(middle_features(features))}
        return {**encoding, "high": features["high"]} if self.priors else encoding

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = self.reduction(middle_features(features))
        mask = resize_like(foreground(mask), feature)
        encoding = {"prototype": masked_average_pool(feature, mask)}
        if self.options.prior == "hierarchical":
            sizes = grid_sizes(self.scales, feature.shape[-2:])
            encoding["prior_support"] = support_means(features["high"], mask, sizes)
        elif self.options.prior == "single":
            encoding["prior_support"] = object_features(features["high"], mask)
        return {**encoding, **self._local(feature, mask)} if self.training else encoding

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        prototype = support["prototype"].mean(1)
        if self.generator is not None:
            prototype = self.generator(torch.cat([self._words(support), prototype], 1))
        return {
            "prototype": prototype,
            **dict(zip(self.priors, self._priors(query, support), strict=True)),
            **{name: support[name] for name in ("local_feature", "local_object") if name in support},
        }

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        feature = query["feature"]
        priors = [guidance[name] for name in self.priors]
        if not priors:  # maps without channels, of the sizes of the scales
            sizes = grid_sizes(self.scales, feature.shape[-2:])
            priors = [feature.new_zeros(len(feature), 0, *size) for size in sizes]
        logits, inner = self.decoder(feature, [guidance["prototype"]], priors)
        return Prediction(logits, {**guidance, **inner})

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return ``main``, ``inner`` and, for a prediction made in training mode, ``triplet``."""
        losses = enrichment_losses(prediction, episode.ground_truth, self.options.aux_weight)
        parts = prediction.parts
        if "local_feature" in parts:
            local, inside = parts["local_feature"], parts["local_object"]
            loss = triplet_loss(
                parts["prototype"].flatten(0, -2),
                local.flatten(0, -4),
                inside.flatten(0, -3),
                self.options.triplet_margin,
            )
            losses["triplet"] = self.options.triplet_weight * loss
        return losses

    def _priors(self, query: Encoding, support: Encoding) -> list[Tensor]:
        """Return the prior of every scale, finest first, averaged over the supports, [B,1,b,b]."""
        if not self.priors:
            return []
        sizes = grid_sizes(self.scales, query["feature"].shape[-2:])
        if self.options.prior == "single":
            prior = shot_priors(query["high"], support["prior_support"]).mean(1)
            return [resize(prior, size) for size in sizes]
        shots = [
            hierarchical_prior(query["high"], means, sizes) for means in support["prior_support"].unbind(1)
        ]
        return [torch.stack(level).mean(0) for level in zip(*shots, strict=True)]

    def _local(self, feature: Tensor, mask: Tensor) -> Encoding:
        """Return local features [B,P,C], and whether each of them belongs to the object, bool [B,P].

        Without a triplet loss there are none.
        """
        if self.local_features is None:
            return {}
        local = self.local_features(feature)
        inside = interpolate(mask, local.shape[-2:], mode="nearest") >= self.options.object_threshold
        return {"local_feature": local.flatten(2).transpose(1, 2), "local_object": inside.flatten(1)}

    def _words(self, support: Encoding) -> Tensor:
        """Return the word vector of every episode's class, [B,width]."""
        assert self.embeddings is not None  # together with the generator
        if CLASS_ID not in support:
            raise ValueError("mianet reads the word vector of the supports' class: pass class_id with them")
        class_id = support[CLASS_ID][:, 0]
        if not waiting.would_wait(class_id):  # ids are in main memory, unless they were moved on purpose
            _refuse_unknown(class_id, len(self.embeddings) - 1)
        return self.embeddings[waiting.sent(class_id, self.embeddings.device)]


def _refuse_unknown(class_id: Tensor, classes: int) -> None:
    """Raise a ValueError for ids of classes [B] other than 1 to ``classes``."""
    outside = class_id[(class_id < 1) | (class_id > classes)]
    if len(outside):
        raise ValueError(
            f"class {int(outside[0])} has no word vector: the table covers the classes 1 to {classes}; "
            "set embeddings to one with a row for every class of the data set"
        )


def _halved(build: BuildArguments) -> tuple[int, ...]:
    spec = build.backbone.spec
    side = -(-build.image_size // spec.features[spec.names(("middle",))[0]].stride)
    return tuple(-(-side // factor) for factor in (1, 2, 4, 8))
