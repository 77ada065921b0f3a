"""One episode under adaptation: its features, computed once, and the rounds of fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewseg.model import waiting
from fewseg.model.adapt.options import EFTNetOptions
from fewseg.model.encoding import META_LOGITS, Encoding, group_encoding, stack_encodings
from fewseg.model.episode import IGNORE, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.loss import pixel_cross_entropy, total

_UNION_EPSILON = 1e-10
_THRESHOLD_EPSILON = 1e-10


@dataclass(frozen=True)
class Outcome:
    """The result of one round.

    Attributes:
        prediction: prediction of the query, with the parameters before the round's step.
        pseudo_label: the predicted label of the query before the round, int64 [1,H,W] of 0, 1, 255, from
            which the round learns.
        confident_mask: the query's mask as a further support, int64 [1,H,W]; None if no pixel is confident.
        losses: weighted losses by name.
        score: mean IoU of the supports when they are segmented with the query as a support, []; NaN if the
            fine-tuning diverged, or if no scores are compared.
        reverse: the predictions of the supports from which the score was computed.
    """

    prediction: Prediction
    pseudo_label: Tensor
    confident_mask: Tensor | None
    losses: dict[str, Tensor]
    score: Tensor
    reverse: tuple[Prediction, ...]

    @property
    def is_finite(self) -> Tensor:
        """Whether the prediction, as no diverged fine-tuning does, holds finite numbers only; bool []."""
        return self.prediction.logits.isfinite().all()


@dataclass(frozen=True)
class Support:
    """An encoded support.

    Attributes:
        encoding: encoding of one image.
        index: its index among the supports of the episode, under which fixed comparisons are stored; None for
            the query in the role of a support, whose mask changes from round to round.
    """

    encoding: Encoding
    index: int | None = None


class AdaptedEpisode:
    """A single query, its K supports, and a model that is fine-tuned on its own prediction.

    Every image passes through the backbone and the base learner once. Only those parts of an encoding that
    depend on trained parameters are computed again in every round. Two images are compared once, unless a
    mask changes.

    Args:
        model: the model, in evaluation mode.
        options: see ``EFTNetOptions``.
        episode: an episode with one query and one way.
        parameters: the trained parameters; there may be none.
    """

    def __init__(
        self,
        model: FewShotModel,
        options: EFTNetOptions,
        episode: Episode,
        parameters: Sequence[nn.Parameter],
    ) -> None:
        if options.discrimination_mask == "ground_truth" and episode.query_mask is None:
            raise ValueError("discrimination_mask: ground_truth needs the query's mask, and there is none")
        self.model, self.options, self.episode = model, options, episode
        self.parameters = list(parameters)
        self.optimizer = None
        if parameters:
            self.optimizer = torch.optim.SGD(
                parameters, options.lr, momentum=options.momentum, weight_decay=options.weight_decay
            )
        self.size = episode.size
        self.images = [episode.query, *episode.support[:, 0].unbind(1)]
        self.masks = list(episode.support_mask[:, 0].unbind(1))
        self._encode_frozen_parts()

    def unadapted(self) -> Prediction:
        """Return the query's prediction by the unadapted model: round 0."""
        with torch.no_grad():
            return self._predict(0, self._supports(), None)

    def round(self, before: Prediction) -> Outcome:
        """Run one round after the prediction ``before``."""
        label, confident = self.pseudo_label(before), self.confident_mask(before)
        supports = self._supports()
        further = None if confident is None else self._query_as_support(confident)
        prediction = self._predict(0, supports, further)
        losses = self._losses(prediction, label)
        return self._outcome(prediction, label, confident, losses, supports)

    def _outcome(
        self,
        prediction: Prediction,
        label: Tensor,
        confident: Tensor | None,
        losses: dict[str, Tensor],
        supports: list[Support],
        *,
        alone: bool = False,
    ) -> Outcome:
        """Return the outcome of a round, scored if the scores decide; see ``_score`` for ``alone``."""
        prediction = Prediction(prediction.logits.detach(), _detached(prediction.parts))
        unknown = prediction.logits.new_full((), math.nan)
        outcome = Outcome(prediction, label, confident, losses, unknown, ())
        if self.options.fixed_round is not None:
            return outcome
        score, reverse = self._score(label, [_detached_support(s) for s in supports], alone=alone)
        return replace(outcome, score=torch.where(outcome.is_finite, score, unknown), reverse=reverse)

    def step(self, outcome: Outcome, rate: float) -> None:
        """Update the parameters by the losses of a round; nothing is learnt at the rate 0."""
        if self.optimizer is None or rate == 0:
            return
        gradients = torch.autograd.grad(total(outcome.losses), self.parameters, allow_unused=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

    def score(self, prediction: Prediction) -> Tensor:
        """Return the score [] of ``prediction`` of the query, without blending of guidance."""
        with torch.no_grad():
            return self._score(self.pseudo_label(prediction), self._supports(), alone=True)[0]

    def pseudo_label(self, prediction: Prediction) -> Tensor:
        """Return the predicted label, int64 [1,H,W], with letterbox padding as void."""
        label = prediction.logits.detach().argmax(1)
        padding = self.episode.query_padding
        return label if padding is None else label.masked_fill(padding, IGNORE)

    def confident_mask(self, prediction: Prediction) -> Tensor | None:
        """Return the most probable share of the predicted foreground, int64 [1,H,W].

        If the share is less than one pixel, ``q2s_empty`` decides whether all pixels or none are confident;
        for ``none``, which is not published, the host waits for the number of pixels.
        """
        probability = prediction.logits.detach().softmax(1)[:, 1]
        if waiting.would_wait(probability) and self.options.q2s_empty == "whole_image":
            return confident_or_whole(probability, self.options.q2s_filt_para)
        foreground = probability[probability > 0.5]
        count = int(len(foreground) * self.options.q2s_filt_para)
        if count == 0:
            return torch.ones_like(probability).long() if self.options.q2s_empty == "whole_image" else None
        threshold = foreground.topk(count).values[-1] + _THRESHOLD_EPSILON
        return (probability >= threshold).long()

    def _losses(self, prediction: Prediction, label: Tensor) -> dict[str, Tensor]:
        align_corners = self.model.meta.align_corners
        losses = {"main": pixel_cross_entropy(prediction.logits, label, align_corners=align_corners)}
        if META_LOGITS in prediction.parts:
            loss = pixel_cross_entropy(prediction.parts[META_LOGITS], label, align_corners=align_corners)
            losses["meta"] = self.options.sr_aux_weight1 * loss
        return losses

    @torch.no_grad()
    def _score(
        self, label: Tensor, supports: list[Support], *, alone: bool
    ) -> tuple[Tensor, tuple[Prediction, ...]]:
        """Segment every support with the query in its place; blend in its own guidance unless ``alone``."""
        oracle = self.options.discrimination_mask == "ground_truth"
        query = self._query_as_support(self.episode.ground_truth if oracle else label)
        reverse, ious = [], []
        for shot, mask in enumerate(self.masks):
            prediction = self._reverse(shot, query, supports, alone=alone)
            predicted, true = prediction.logits.argmax(1) == 1, mask == 1
            union = (predicted | true).sum() + _UNION_EPSILON
            ious.append((predicted & true).sum() / union)
            reverse.append(prediction)
        return torch.stack(ious).mean(), tuple(reverse)

    def _reverse(self, shot: int, query: Support, supports: list[Support], *, alone: bool) -> Prediction:
        others = [*supports[:shot], query, *supports[shot + 1 :]]
        return self._predict(shot + 1, others, None if alone else supports[shot])

    @torch.no_grad()
    def _encode_frozen_parts(self) -> None:
        """Compute those parts of all encodings that do not depend on trained parameters."""
        model = self.model
        self.features = [model.shared_features(image) for image in self.images]
        self.queries = [model.encode_query_features(features) for features in self.features]
        self.support_features = [
            model.as_support(features, mask)
            for features, mask in zip(self.features[1:], self.masks, strict=True)
        ]
        class_id = self.episode.class_id[:, 0]
        self.encodings = [
            model.encode_support_features(features, mask, class_id)
            for features, mask in zip(self.support_features, self.masks, strict=True)
        ]
        self.auxiliary = model.encode_auxiliary_of(self.episode)
        if not model.meta.inputs.multi_way:
            self.auxiliary = {name: tensor.flatten(0, 1) for name, tensor in self.auxiliary.items()}
        self.compared: dict[tuple[int, int | None], Encoding] = {}
        self.memories: dict[int, dict[str, Any]] = {}

    def _query(self, image: int) -> Encoding:
        return {**self.queries[image], **self.model.meta.trainable_query(self.features[image])}

    def _supports(self) -> list[Support]:
        trained = map(self.model.meta.trainable_support, self.support_features, self.masks)
        return [
            Support({**encoding, **update}, index)
            for index, (encoding, update) in enumerate(zip(self.encodings, trained, strict=True))
        ]

    def _query_as_support(self, mask: Tensor) -> Support:
        """Encode the query as a support with ``mask``."""
        with torch.no_grad():
            features = self.model.as_support(self.features[0], mask)
        return Support(self.model.encode_support_features(features, mask, self.episode.class_id[:, 0]))

    def _predict(self, image: int, supports: list[Support], further: Support | None) -> Prediction:
        """Segment an image, 0 for the query; blend in the guidance of a further support if there is one."""
        model, query = self.model, self._query(image)
        support = self._grouped(image, query, supports)
        guidance = model.meta.match(query, support)
        distance = model.scene_distance(query, support, guidance)
        if further is not None:
            assert model.meta.adaptation is not None  # EFTNet refuses a method without it
            support_share, further_share = self.options.weighting
            other = model.meta.match(query, self._grouped(image, query, [further]))
            mixed = {
                name: support_share * guidance[name] + further_share * other[name]
                for name in model.meta.adaptation.blended
            }
            guidance = guidance | mixed
        return model.finish(model.meta.segment(query, guidance), query, distance, self.size)

    def _grouped(self, image: int, query: Encoding, supports: list[Support]) -> Encoding:
        axes = (1, 1, len(supports)) if self.model.meta.inputs.multi_way else (1, len(supports))
        encodings = [s.encoding | self._comparison(image, query, s) for s in supports]
        return group_encoding(stack_encodings(encodings), *axes) | self.auxiliary

    @torch.no_grad()
    def _comparison(self, image: int, query: Encoding, support: Support) -> Encoding:
        key = (image, support.index)
        if key in self.compared:
            return self.compared[key]
        memory = self.memories.setdefault(image, {}) if support.index is None else None
        comparison = self.model.comparisons(query, support.encoding, memory)
        if support.index is not None:
            self.compared[key] = comparison
        return comparison


def confident_or_whole(probability: Tensor, share: float) -> Tensor:
    """Return the most probable share of the foreground, or all pixels where that is less than one.

    Args:
        probability: of the foreground, [1,H,W]. Nothing is read by the host.
        share: the share of the pixels above 0.5.
    """
    count = ((probability > 0.5).sum().double() * share).long()
    ordered = probability.flatten().sort(descending=True).values
    threshold = ordered.gather(0, (count - 1).clamp_min(0).view(1)) + _THRESHOLD_EPSILON
    return ((probability >= threshold) | (count == 0)).long()


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _detached_support(support: Support) -> Support:
    return Support(_detached(support.encoding), support.index)
