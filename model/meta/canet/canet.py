"""CANet: C. Zhang, G. Lin, F. Liu, R. Yao, C. Shen, "CANet: Class-Agnostic Segmentation Networks with
Iterative Refinement and Attentive Few-Shot Learning", CVPR 2019.

A support prototype is tiled over the query's middle features and compared with them by a convolution. A head
computes a prediction from the comparison and from its own previous prediction, the history, several times in
a row. The attention over K supports was never released; it is implemented here as the paper describes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fewseg.model import waiting
from fewseg.model.backbone.contract import BackboneSpec
from fewseg.model.backbone.resnet import DEEPLAB
from fewseg.model.contract import BuildArguments, MetaLearner
from fewseg.model.encoding import CLASS_ID, QUERY_NUMBER, SHOT_LOGITS, Encoding
from fewseg.model.episode import Prediction
from fewseg.model.layer.block import activated
from fewseg.model.layer.features import joined_features
from fewseg.model.layer.pooling import foreground, masked_average_pool
from fewseg.model.layer.refinement import HistoryRefinement, published_refinement_names
from fewseg.model.layer.resize import resize_like
from fewseg.model.layer.shot_weights import fuse_shots
from fewseg.model.layer.tiled import DenseComparison
from fewseg.model.meta.canet.history import PredictionMemory, Sample
from fewseg.model.meta.canet.shot_attention import ShotAttention
from fewseg.model.options import Channels, Count, Dropout, Share
from fewseg.model.records import Adaptation, Inputs, Learning, Map, MapKind, Published

_FIRST_BLOCK = 2
_FEATURE_FUSIONS = ("attention", "feature_average")


@dataclass(frozen=True)
class CANetOptions:
    """Options of CANet.

    Attributes:
        blocks: the blocks of the backbone whose features are concatenated and compared, the paper's block2,
            block3 and block4: 2 and 3 as published. With 4 the backbone needs its last stage:
            ``Method.backbone_options.last_stage layer4``.
        passes: number of passes of the head at test time, including the first; training has one. With 1 there
            is no iterative optimisation.
        history: the previous prediction in training: the one ``remembered`` from the last time that the query
            was used with that class, as published, or a ``fresh`` one from an extra pass. Remembered
            predictions need queries without random crops or rotations, that is a protocol that stretches.
        history_drop: share of samples that are trained without history.
        fusion: how K supports are fused: their comparisons by learned ``attention`` (a model built for one
            shot has none and averages) or by ``feature_average``, or their masks by ``mask_average`` or
            ``mask_or``. The paper uses attention.
        fix_bn: whether the frozen backbone normalises with its stored statistics in training. Published:
            False, so it normalises by the batch, and its statistics drift away from the pretrained ones.
        dropout: share of channels that are dropped in training after most layers.
        channels: width of the head; 256 in the published network.
    """

    blocks: tuple[Literal[2, 3, 4], ...] = (2, 3)
    passes: Count = 5
    history: Literal["remembered", "fresh"] = "remembered"
    history_drop: Share = 0.7
    fusion: Literal["attention", "feature_average", "mask_average", "mask_or"] = "attention"
    fix_bn: bool = True
    dropout: Dropout = 0.5
    channels: Channels = 256

    def __post_init__(self) -> None:
        if list(self.blocks) != sorted(set(self.blocks)):
            raise ValueError(
                f"blocks of canet must be different and ascending, such as [2, 3]; got {list(self.blocks)}"
            )


class CANet(MetaLearner):
    """Dense comparison, then iterative optimisation."""

    Options = CANetOptions
    memory: PredictionMemory
    inputs = Inputs().reading("middle")
    learning = Learning(shot_bound={"attention": ("fusion", "feature_average")})
    adaptation = Adaptation(blended=("prototype",))
    published = Published(
        backbone_variants={"resnet": DEEPLAB},
        names={
            "backbone.layer0.0": "conv1",
            "backbone.layer0.1": "bn1",
            "reduce": "layer5",
            "comparison.conv": "layer55.0",
            **published_refinement_names("refine", "layer6_"),
        },
        maps=(Map("pass#", "foreground after pass #", MapKind.FOREGROUND, (0, 1)),),
    )

    def __init__(self, build: BuildArguments, options: CANetOptions) -> None:
        super().__init__()
        channels, dropout = options.channels, options.dropout
        self.options = options
        self.learning = self.learning.with_stored_statistics(options.fix_bn)
        self.blocks = _features_of(build.backbone.spec, options.blocks)
        if options.blocks != CANetOptions.blocks:
            self.inputs = self.inputs.reading(*self.blocks)
        inputs = sum(map(build.backbone.spec.channels, self.blocks))
        self.reduce = activated(inputs, channels, dilation=2, dropout=dropout)
        self.comparison = DenseComparison(channels, dropout=dropout)
        self.refine = HistoryRefinement(channels, dropout=dropout)
        attends = options.fusion == "attention" and build.shot > 1
        self.attention = ShotAttention(channels) if attends else None
        self.memory = PredictionMemory()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        feature = self.reduce_middle(features)
        encoding = {"compared": self.comparison.conv.over_maps(feature)}
        if self.attention is not None:
            encoding["attended"] = self.attention.conv.over_maps(feature)
        return encoding

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        feature = self.reduce_middle(features)
        return {"prototype": masked_average_pool(feature, resize_like(foreground(mask), feature))}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        class_id = {CLASS_ID: support[CLASS_ID][:, 0]} if CLASS_ID in support else {}
        return {"prototype": support["prototype"], **class_id}

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        compared = torch.stack(self.compare_all(query, guidance), 1)
        if self.options.fusion in _FEATURE_FUSIONS:
            compared = fuse_shots(compared, self._shot_weights(query, guidance)).unsqueeze(1)
        parts = dict(guidance)
        if self.training:
            samples = _samples(query, guidance)
            history = self._training_history(compared, samples)
            shot_logits = [self._run(compared, history)]
            if samples:
                self.memory.remember(samples, self.join_shots(shot_logits[0]))
        else:
            shot_logits = self._passes(compared)
        fused = [self.join_shots(logits) for logits in shot_logits]
        parts |= {f"pass{index}": logits for index, logits in enumerate(fused)}
        return Prediction(fused[-1], {**parts, SHOT_LOGITS: shot_logits[-1]})

    def reduce_middle(self, features: Mapping[str, Tensor]) -> Tensor:
        """Reduce the features of queries or supports to [B,channels,h,w]."""
        return self.reduce(joined_features(features, self.blocks, self.blocks[-1]))

    def compare_all(self, query: Encoding, guidance: Encoding) -> list[Tensor]:
        """Compare queries with the prototype of every support -> K maps [B,channels,h,w]."""
        return self.comparison(query["compared"], guidance["prototype"])

    def _shot_weights(self, query: Encoding, guidance: Encoding) -> Tensor:
        """Return weights [B,K] that sum to one."""
        prototype = guidance["prototype"]
        batch, shots = prototype.shape[:2]
        if self.attention is None or shots == 1:
            return prototype.new_full((batch, shots), 1 / shots)
        return self.attention(query["attended"], prototype)

    def _run(self, compared: Tensor, history: Tensor) -> Tensor:
        """Segment comparisons [B,K,C,h,w] with their history [B,2,h,w] or [B*K,2,h,w] -> [B,K,2,h,w]."""
        history = history.repeat_interleave(compared.shape[0] * compared.shape[1] // len(history), 0)
        return self.refine(compared.flatten(0, 1), history).unflatten(0, compared.shape[:2])

    def _passes(self, compared: Tensor) -> list[Tensor]:
        """Run the head several times, each time on its previous prediction, and first without history."""
        history = compared.new_zeros(len(compared), 2, *compared.shape[-2:])
        passes: list[Tensor] = []
        for _ in range(self.options.passes):
            passes.append(self._run(compared, history))
            history = passes[-1].detach().flatten(0, 1).softmax(1)
        return passes

    def _training_history(self, compared: Tensor, samples: list[Sample]) -> Tensor:
        """Return the history [B,2,h,w] of training samples; zero if it is dropped or does not exist."""
        history = compared.new_zeros(len(compared), 2, *compared.shape[-2:])
        kept = (torch.rand(len(compared)) >= self.options.history_drop).nonzero()[:, 0]
        if len(kept) and self.options.history == "fresh":
            rows = waiting.sent(kept, history.device)
            with torch.no_grad():
                first = self._run(compared[rows], history[rows])
            history[rows] = self.join_shots(first).softmax(1).to(history)
        elif samples:
            for row in kept.tolist():
                history[row] = self.memory.recall(samples[row], history.shape[-2:], history.device)
        return history

    def join_shots(self, shot_logits: Tensor) -> Tensor:
        """Join the masks of several supports [B,K,2,h,w], or take the only one -> logits [B,2,h,w]."""
        if shot_logits.shape[1] == 1:
            return shot_logits[:, 0]
        if self.options.fusion == "mask_average":
            return shot_logits.log_softmax(2).logsumexp(1)
        margin = (shot_logits[:, :, 1] - shot_logits[:, :, 0]).amax(1)
        return torch.stack([torch.zeros_like(margin), margin], 1)


def _features_of(spec: BackboneSpec, blocks: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of the features of the paper's blocks 2, 3 and 4.

    Raises:
        ValueError: the backbone ends before the last of them.
    """
    names = (*spec.roles["middle"], *spec.roles.get("high", ()))
    if blocks[-1] - _FIRST_BLOCK >= len(names):
        raise ValueError(
            f"canet with block {blocks[-1]} reads further than {spec.deepest}, where {spec.name} as built "
            "ends; set Method.backbone_options.last_stage layer4"
        )
    return tuple(names[block - _FIRST_BLOCK] for block in blocks)


def _samples(query: Encoding, guidance: Encoding) -> list[Sample]:
    """Return the keys of training samples in the memory; none if the episodes do not contain them."""
    if QUERY_NUMBER not in query or CLASS_ID not in guidance:
        return []
    return list(zip(query[QUERY_NUMBER].tolist(), guidance[CLASS_ID].tolist(), strict=True))
