"""BAM's meta-learner: C. Lang, G. Cheng, B. Tu, J. Han, "Learning What Not to Segment", CVPR 2022.

A support prototype and PFENet's prior guide an ASPP decoder over the query. The other part of BAM, the
ensemble with the base learner, is in ``model/ensemble.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import conv2d

from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import SHOT_WEIGHTS, Encoding
from fewseg.model.episode import Prediction
from fewseg.model.layer.block import reduction
from fewseg.model.layer.decoder import ASPPDecoder, published_decoder_names
from fewseg.model.layer.prior_guided import PriorGuided
from fewseg.model.layer.resize import resize_like
from fewseg.model.layer.shot_weights import SHOT_BOUND, ShotWeightOptions, ShotWeights, fuse_shots
from fewseg.model.options import Channels, Dropout
from fewseg.model.records import Learning, Published


@dataclass(frozen=True)
class BAMOptions(ShotWeightOptions):
    """Options of BAM.

    Attributes:
        kshot_trans_dim, shot_weights: see ``ShotWeightOptions``.
        channels: width of the decoder; 256 in the published network.
        dropout: share of channels of the reduced features that are dropped in training; published: 0.5.
    """

    channels: Channels = 256
    dropout: Dropout = 0.5


class BAM(PriorGuided):
    """Prototype and prior, fused over the shots by learned weights, then an ASPP decoder."""

    Options = BAMOptions
    learning = Learning(shot_bound=SHOT_BOUND)
    published = Published(
        base="pspnet",
        ensemble="bam",
        names={
            **PriorGuided.published.names,
            "merge": "init_merge",
            "shot_weights.network": "kshot_rw",
            **published_decoder_names("decoder", "_meta"),
        },
        maps=PriorGuided.published.maps,
    )

    def __init__(self, build: BuildArguments, options: BAMOptions) -> None:
        width = options.channels
        super().__init__(build.backbone, width, options.dropout)
        self.merge = reduction(2 * width + 1, width)
        self.decoder = ASPPDecoder(width)
        self.shot_weights = ShotWeights(build, options)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        encoding = super().encode_query(features)
        merged = conv2d(encoding["feature"], self._merge_weights()[0])
        return {**encoding, "merged": merged, **self.shot_weights.encode(features)}

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        return super().encode_support(features, mask) | self.shot_weights.encode(features)

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        weights = self.shot_weights(query, support)
        priors = self.priors(query, support)
        return {
            "prototype": fuse_shots(support["prototype"], weights),
            "prior": fuse_shots(priors, weights),
            SHOT_WEIGHTS: weights,
        }

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        return Prediction(self.decoder(self._merge(query, guidance)), dict(guidance))

    def _merge(self, query: Encoding, guidance: Encoding) -> Tensor:
        """Merge feature, tiled prototype and prior, [B,C,h,w].

        The layer is linear before its activation. The share of the feature is therefore part of the query's
        encoding, and that of the prototype is the same at all positions.
        """
        _, of_prototype, of_prior = self._merge_weights()
        merged = conv2d(resize_like(guidance["prior"], query["feature"]), of_prior)
        merged += query["merged"]
        merged += conv2d(guidance["prototype"][:, :, None, None], of_prototype)
        return self.merge[1:](merged)

    def _merge_weights(self) -> tuple[Tensor, ...]:
        """Return the kernels of the merging layer for feature, prototype and prior."""
        convolution = self.merge[0]
        assert isinstance(convolution, nn.Conv2d)
        width = convolution.out_channels
        return convolution.weight.split((width, width, 1), 1)
