"""The whole network: backbone, meta-learner and, optionally, base learner and ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fewseg.model.contract import Backbone, BaseHead, BaseLearner, MetaLearner, TrainingMemory
from fewseg.model.encoding import (
    ADJUSTED,
    BASE_LOGITS,
    CLASS_ID,
    GRAM,
    LOGITS,
    META_LOGITS,
    QUERY_NUMBER,
    SHOT_WEIGHTS,
    Encoding,
    group_encoding,
    repeat_encoding,
)
from fewseg.model.ensemble import ENSEMBLE_MAPS, BaseMetaEnsemble
from fewseg.model.episode import Episode, Prediction
from fewseg.model.feature_reader import FeatureReader
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.resize import resize
from fewseg.model.records import BASE_FEATURE, AuxiliarySet, BatchNorm, GroupRule, Map, MapKind

_BASE_MAP = Map(BASE_LOGITS, "base learner", MapKind.BASE_CLASSES)
_FINAL_MAPS = (Map(LOGITS, "foreground probability", MapKind.FOREGROUND),)


class FewShotModel(FeatureReader):
    """Encodes queries and supports, decodes, and merges the result with the base learner's.

    The computation is the same in training and evaluation.

    Args:
        backbone: the feature extractor; frozen unless the meta-learner trains it.
        meta: the method.
        base_head: the frozen classifier of the base learner on ``high`` features, or None.
        ensemble: the ensemble of both, which needs ``base_head``, or None.
        base_dropout: whether the frozen classifier's dropout is active in meta-training, as in published BAM.
        aux_weights: weights of the losses besides the ensemble's: that of the meta-learner's own prediction,
            and that of the base learner's, which has no gradient.
    """

    def __init__(
        self,
        backbone: Backbone,
        meta: MetaLearner,
        base_head: BaseHead | None = None,
        ensemble: BaseMetaEnsemble | None = None,
        *,
        base_dropout: bool = True,
        aux_weights: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.meta = meta
        self.base_head = base_head
        self.ensemble = ensemble
        self.base_dropout = base_dropout
        self.aux_weights = aux_weights
        for frozen in self._frozen():
            frozen.requires_grad_(False)

    @property
    def alternating(self) -> tuple[tuple[str, ...], ...]:
        """Losses that are minimised one after the other; see ``Learning``."""
        return self.meta.learning.alternating

    @property
    def memory(self) -> TrainingMemory:
        """Data besides the weights that training gathers; see ``MetaLearner``."""
        return self.meta.memory

    @property
    def group_rules(self) -> Mapping[str, GroupRule]:
        """Learning rates and weight decay of groups of parameters that differ from the schedule's."""
        return self.meta.learning.group_rules

    @property
    def batch_dependent(self) -> bool:
        """Whether an encoding depends on the other images of its batch."""
        return self.meta.inputs.batch_dependent

    @property
    def holds_base_learner(self) -> bool:
        """Whether it contains the frozen head of a base learner, which is trained in stage 1."""
        return self.base_head is not None

    @property
    def maps(self) -> tuple[Map, ...]:
        """The parts of a prediction that figures show as maps over the query, the final ones first."""
        base = () if self.base_head is None else (_BASE_MAP,)
        final = _FINAL_MAPS if self.ensemble is None else ENSEMBLE_MAPS
        return (*final, *base, *self.meta.published.maps)

    def forward(self, episode: Episode) -> Prediction:
        """Segment the queries of ``episode`` -> logits [B,1+N,H,W]."""
        batch, ways, shots = episode.support.shape[:3]
        query, support = self._encode_both(episode)
        excluded = (
            episode.class_index.flatten() if self.training and episode.class_index is not None else None
        )
        support = group_encoding(support, batch, ways, shots) | self.encode_auxiliary_of(episode)
        return self.decode(query, support, episode.size, excluded)

    def _encode_both(self, episode: Episode) -> tuple[Encoding, Encoding]:
        """Encode the queries, first axis B, and the supports, first axis B*N*K."""
        classes = episode.class_id.flatten().repeat_interleave(episode.shots)
        supports = (episode.support.flatten(0, 2), episode.support_mask.flatten(0, 2), classes)
        if self.meta.inputs.support_first:
            support, query = self.encode_support(*supports), self.encode_query(episode.query)
        else:
            query, support = self.encode_query(episode.query), self.encode_support(*supports)
        if self.training and episode.query_number is not None:
            query[QUERY_NUMBER] = episode.query_number
        return query, support

    def encode_query(self, image: Tensor) -> Encoding:
        """Encode query images [B,3,H,W]."""
        return self.encode_query_features(self.query_features(image))

    def encode_support(self, image: Tensor, mask: Tensor, class_id: Tensor | None = None) -> Encoding:
        """Encode support images [B,3,H,W] of ``class_id`` [B] with masks [B,H,W] of 0, 1, 255.

        The ids may stay in main memory, where the host can read them without waiting.
        """
        features = self.support_features(image, mask, within_mask=True)
        return self.encode_support_features(features, mask, class_id)

    def comparisons(
        self, query: Encoding, support: Encoding, memory: dict[str, Any] | None = None
    ) -> Encoding:
        """Return the comparisons of B queries with one support each, all encoded.

        Together with the support's encoding they make decoding cheaper wherever the two meet again, in
        another episode or after a step of adaptation; see ``MetaLearner.comparisons``.
        """
        pairs = len(next(iter(support.values())))
        compared = self.meta.comparisons(query, group_encoding(support, pairs, 1), memory)
        return {name: tensor.flatten(0, 1) for name, tensor in compared.items()}

    def encode_auxiliary(self, image: Tensor, label: Tensor | None = None) -> Encoding:
        """Encode auxiliary images [B,3,H,W], and their labels [B,H,W] if they are mined."""
        with_gradient = torch.is_grad_enabled() and self.meta.learning.auxiliary_gradient
        with torch.set_grad_enabled(with_gradient):
            features = self._features(image, set(self.meta.inputs.query))
        return self.meta.encode_auxiliary(features, label)

    def encode_auxiliary_of(self, episode: Episode) -> Encoding:
        """Encode the auxiliary images of an episode, first axes B, N, M; empty if there are none."""
        images, labels = episode.auxiliary, episode.auxiliary_label
        if images is None or images.shape[2] == 0 or self.meta.inputs.auxiliary is AuxiliarySet.NONE:
            return {}
        labels = None if labels is None else labels.flatten(0, 2)
        return group_encoding(self.encode_auxiliary(images.flatten(0, 2), labels), *images.shape[:3])

    def decode(
        self, query: Encoding, support: Encoding, size: tuple[int, int], excluded: Tensor | None = None
    ) -> Prediction:
        """Segment B encoded queries.

        Args:
            query: encodings, first axis B.
            support: encodings, first axes B, N, K; those of auxiliary images B, N, M.
            size: height and width of the images, to which the logits are upsampled.
            excluded: zero-based base class of every target [B*N], in meta-training.
        """
        ways = next(iter(support.values())).shape[1]
        if not self.meta.inputs.multi_way:
            query = repeat_encoding(query, ways) if ways > 1 else query
            support = {name: tensor.flatten(0, 1) for name, tensor in support.items()}
        guidance = self.meta.match(query, support)
        distance = self.scene_distance(query, support, guidance)
        prediction = self.finish(self.meta.segment(query, guidance), query, distance, size, excluded)
        return prediction if self.meta.inputs.multi_way or ways == 1 else _join_ways(prediction, ways)

    def losses_on(
        self, batch: Episode, forward: Callable[[Any], Any], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return self.losses(forward(batch), batch, generator)

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the named, weighted losses, whose sum is minimised."""
        if self.ensemble is None:
            return self.meta.losses(prediction, episode, generator)
        meta_weight, base_weight = self.aux_weights
        learner = replace(prediction, logits=prediction.parts[META_LOGITS])
        losses = self.meta.losses(learner, episode, generator)
        losses = {
            "main": pixel_cross_entropy(prediction.logits, episode.ground_truth),
            "meta": meta_weight * losses.pop("main"),
            **losses,
        }
        if episode.base_label is not None:  # no gradient: the base learner is frozen
            losses["base"] = base_weight * pixel_cross_entropy(
                prediction.parts[BASE_LOGITS], episode.base_label
            )
        return losses

    def adopt(self, base_learner: BaseLearner) -> None:
        """Copy the weights of a trained base learner with the same backbone.

        Raises:
            ValueError: the backbones differ; the model is unchanged.
        """
        own = self.backbone.state_dict()
        theirs = self.backbone.with_own_channels(base_learner.backbone.state_dict())
        differing = [name for name in own if name not in theirs or theirs[name].shape != own[name].shape]
        if differing:
            raise ValueError(
                f"the base learner's backbone is built otherwise (e.g. {differing[0]}); give both the same "
                "backbone_options"
            )
        self.backbone.load_state_dict({name: theirs[name] for name in own})
        if self.base_head is not None:
            self.base_head.load_state_dict(base_learner.head.state_dict())
        self.initialise({})

    def initialise(self, entries: Mapping[str, Tensor]) -> None:
        """Let the method initialise its further weights from pretrained ones."""
        self.meta.initialise(self.backbone, entries)

    def encode_query_features(self, features: Mapping[str, Tensor]) -> Encoding:
        """Encode query images from their features, with gradients for the trainable part of the encoder."""
        encoding = self.meta.encode_query(features)
        if self.ensemble is not None and GRAM not in encoding:
            encoding |= self.ensemble.encode(features)
        if self.base_head is not None:
            with torch.no_grad():
                embedded = features.get(BASE_FEATURE)
                if embedded is None:
                    embedded = self.base_head.embed(features["high"])
                encoding[BASE_LOGITS] = self.base_head.classify(embedded)
        return encoding

    def encode_support_features(
        self, features: Mapping[str, Tensor], mask: Tensor, class_id: Tensor | None = None
    ) -> Encoding:
        """Encode support images from their features and masks."""
        encoding = self.meta.encode_support(features, mask)
        if self.ensemble is not None and GRAM not in encoding:
            encoding |= self.ensemble.encode(features)
        if class_id is not None:
            encoding[CLASS_ID] = class_id
        return encoding

    def scene_distance(self, query: Encoding, support: Encoding, guidance: Encoding) -> Tensor | None:
        """Return the distance of each query's scene from its supports', [B]; None if no ensemble needs it."""
        if self.ensemble is None:
            return None
        return self.ensemble.scene_distance(query, support, guidance.get(SHOT_WEIGHTS))

    def finish(
        self,
        prediction: Prediction,
        query: Encoding,
        distance: Tensor | None,
        size: tuple[int, int],
        excluded: Tensor | None = None,
    ) -> Prediction:
        """Merge the meta-learner's ``prediction`` with the base learner's and upsample both to ``size``."""
        parts = dict(prediction.parts)
        meta = prediction.logits
        upsampled = self.meta.upsample(prediction, size)
        if self.base_head is not None:
            parts[BASE_LOGITS] = resize(query[BASE_LOGITS], size)
        if self.ensemble is None:
            return Prediction(upsampled, parts)
        final = self.ensemble(meta, query[BASE_LOGITS], distance, excluded)
        parts[META_LOGITS] = upsampled
        if distance is not None:
            parts["scene_distance"] = distance
            if not self.training:
                parts[ADJUSTED] = self.ensemble.adjust(meta, distance)
        return Prediction(resize(final, size), parts)

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by the name of their group.

        The backbone and the few scalars of the ensemble come first, because schedules refer to positions.
        """
        groups = {}
        if self.trains_backbone:
            groups["backbone"] = [p for p in self.backbone.parameters() if p.requires_grad]
        if self.ensemble is not None:
            groups |= {name: list(part.parameters()) for name, part in self.ensemble.named_children()}
        groups |= self.meta.param_groups()
        return _without_biases(groups) if self.meta.learning.separate_biases else groups

    def train(self, mode: bool = True) -> FewShotModel:
        """Set the mode of every part, except of BatchNorms that keep their stored statistics."""
        super().train(mode)
        learning = self.meta.learning
        stored = learning.batch_norm is BatchNorm.STORED
        backbone = (
            learning.batch_norm is BatchNorm.STORED_IN_BACKBONE or learning.backbone != self.trains_backbone
        )
        if mode and (stored or backbone):
            for module in _batch_norms(self if stored else self.backbone):
                module.eval()
        if mode and self.base_head is not None and not self.base_dropout:
            self.base_head.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        parts: list[nn.Module] = [self.backbone]
        if self.trains_backbone:
            parts = [] if self.meta.learning.backbone_affine else _batch_norms(self.backbone)
        return parts if self.base_head is None else [*parts, self.base_head]


def _batch_norms(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _without_biases(groups: Mapping[str, list[nn.Parameter]]) -> dict[str, list[nn.Parameter]]:
    """Move the vectors of every group to a separate group after it."""
    split: dict[str, list[nn.Parameter]] = {}
    for name, parameters in groups.items():
        split[name] = [p for p in parameters if p.ndim > 1]
        split[f"{name}.bias"] = [p for p in parameters if p.ndim <= 1]
    return split


def _join_ways(prediction: Prediction, ways: int) -> Prediction:
    """Combine one binary prediction per way, [B*N,2,H,W], to logits [B,1+N,H,W].

    A pixel is assigned to the way with the largest positive foreground margin, otherwise to the background.
    """
    margin = prediction.logits[:, 1] - prediction.logits[:, 0]
    margin = margin.unflatten(0, (-1, ways))
    logits = torch.cat([torch.zeros_like(margin[:, :1]), margin], 1)
    parts = {name: part.unflatten(0, (-1, ways)) for name, part in prediction.parts.items()}
    if BASE_LOGITS in parts:  # the same for every way
        parts[BASE_LOGITS] = parts[BASE_LOGITS][:, 0]
    return Prediction(logits, parts)
