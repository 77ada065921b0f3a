"""One episode under adaptation: its frozen features, kept, and the rounds played on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewseg.model.adapt.options import EFTNetOptions
from fewseg.model.encoding import META_LOGITS, Encoding, group_encoding, stack_encodings
from fewseg.model.episode import IGNORE, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.loss import pixel_cross_entropy, total

_UNION_EPSILON = 1e-10
_THRESHOLD_EPSILON = 1e-10


@dataclass(frozen=True)
class Outcome:
    """What one round gave.

    Attributes:
        prediction: of the query, with the parameters as they were before the round's step.
        pseudo_label: what the round learns from, int64 [1,H,W] of 0, 1, 255.
        confident_mask: the query's mask as a further support, int64 [1,H,W]; None where nothing is certain.
        losses: by name, weighted.
        score: how well the query, as a support, helps to segment the supports: a mean IoU. Not a number where
            learning diverged.
        reverse: the supports' predictions that the score was taken of.
    """

    prediction: Prediction
    pseudo_label: Tensor
    confident_mask: Tensor | None
    losses: dict[str, Tensor]
    score: float
    reverse: tuple[Prediction, ...]


@dataclass(frozen=True)
class Support:
    """An encoded support.

    Attributes:
        encoding: of one image.
        number: which support of the episode it is, so that what never changes is computed once; None for the
            query in a support's place, whose mask changes from round to round.
    """

    encoding: Encoding
    number: int | None = None


class AdaptedEpisode:
    """A single query, its K supports, and a model that learns from its own prediction.

    Every image passes the backbone and the base learner once. Of an image's encoding only what the parameters
    reach is computed again in every round, and two images are compared once, unless a mask changes.

    Args:
        model: in evaluation mode.
        options: see ``EFTNetOptions``.
        episode: with one query and one way.
        parameters: those that learn; may be none.
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

    def untouched(self) -> Prediction:
        """Return the query's prediction without any help from itself: round 0."""
        with torch.no_grad():
            return self._predict(0, self._supports(), None)

    def round(self, before: Prediction) -> Outcome:
        """Play one round after the prediction ``before``."""
        label, confident = self.pseudo_label(before), self.confident_mask(before)
        supports = self._supports()
        own = None if confident is None else self._stand_in(confident)
        prediction = self._predict(0, supports, own)
        losses = self._losses(prediction, label)
        score, reverse = self._score(label, [_detached_support(s) for s in supports], alone=False)
        prediction = Prediction(prediction.logits.detach(), _detached(prediction.parts))
        score = score if prediction.logits.isfinite().all() else math.nan
        return Outcome(prediction, label, confident, losses, score, reverse)

    def step(self, outcome: Outcome, rate: float) -> None:
        """Let the parameters learn from a round."""
        if self.optimizer is None:
            return
        gradients = torch.autograd.grad(total(outcome.losses), self.parameters, allow_unused=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

    def score(self, prediction: Prediction) -> float:
        """Return how well the query under ``prediction`` helps to segment the supports, unmixed."""
        with torch.no_grad():
            return self._score(self.pseudo_label(prediction), self._supports(), alone=True)[0]

    def pseudo_label(self, prediction: Prediction) -> Tensor:
        """Return what is predicted, int64 [1,H,W], with letterbox padding void."""
        label = prediction.logits.detach().argmax(1)
        padding = self.episode.query_padding
        return label if padding is None else label.masked_fill(padding, IGNORE)

    def confident_mask(self, prediction: Prediction) -> Tensor | None:
        """Return the most probable share of the predicted foreground, int64 [1,H,W].

        Where the share is not even one pixel, everything or nothing is certain, as ``q2s_empty`` says.
        """
        probability = prediction.logits.detach().softmax(1)[:, 1]
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
    ) -> tuple[float, tuple[Prediction, ...]]:
        """Segment every support with the query in its place among the supports, and itself blended in."""
        given = self.options.discrimination_mask == "ground_truth"
        stand_in = self._stand_in(self.episode.ground_truth if given else label)
        reverse, ious = [], []
        for shot, mask in enumerate(self.masks):
            prediction = self._reverse(shot, stand_in, supports, alone=alone)
            predicted, true = prediction.logits.argmax(1) == 1, mask == 1
            union = (predicted | true).sum() + _UNION_EPSILON
            ious.append((predicted & true).sum() / union)
            reverse.append(prediction)
        return float(torch.stack(ious).mean()), tuple(reverse)

    def _reverse(self, shot: int, stand_in: Support, supports: list[Support], *, alone: bool) -> Prediction:
        others = [*supports[:shot], stand_in, *supports[shot + 1 :]]
        return self._predict(shot + 1, others, None if alone else supports[shot])

    @torch.no_grad()
    def _encode_frozen_parts(self) -> None:
        """Compute what of every image the trained parameters never change."""
        model = self.model
        self.features = [model.shared_features(image) for image in self.images]
        self.queries = [model.encode_query_features(features) for features in self.features]
        self.seen = [
            model.as_support(features, mask)
            for features, mask in zip(self.features[1:], self.masks, strict=True)
        ]
        class_id = self.episode.class_id[:, 0]
        self.known = [
            model.encode_support_features(seen, mask, class_id)
            for seen, mask in zip(self.seen, self.masks, strict=True)
        ]
        self.auxiliary = model.encode_auxiliary_of(self.episode)
        if not model.meta.inputs.multi_way:
            self.auxiliary = {name: tensor.flatten(0, 1) for name, tensor in self.auxiliary.items()}
        self.compared: dict[tuple[int, int | None], Encoding] = {}
        self.memories: dict[int, dict[str, Any]] = {}

    def _query(self, image: int) -> Encoding:
        return {**self.queries[image], **self.model.meta.trainable_query(self.features[image])}

    def _supports(self) -> list[Support]:
        learned = map(self.model.meta.trainable_support, self.seen, self.masks)
        return [
            Support({**known, **new}, number)
            for number, (known, new) in enumerate(zip(self.known, learned, strict=True))
        ]

    def _stand_in(self, mask: Tensor) -> Support:
        """Encode the query as a support with ``mask``."""
        with torch.no_grad():
            features = self.model.as_support(self.features[0], mask)
        return Support(self.model.encode_support_features(features, mask, self.episode.class_id[:, 0]))

    def _predict(self, image: int, supports: list[Support], own: Support | None) -> Prediction:
        """Segment an image, 0 for the query; blend in the guidance of one more support, its own."""
        model, query = self.model, self._query(image)
        support = self._grouped(image, query, supports)
        guidance = model.meta.match(query, support)
        distance = model.scene_distance(query, support, guidance)
        if own is not None:
            assert model.meta.adaptation is not None  # EFTNet refuses a method without it
            theirs, share = self.options.weighting
            further = model.meta.match(query, self._grouped(image, query, [own]))
            mixed = {
                name: theirs * guidance[name] + share * further[name]
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
        key = (image, support.number)
        if key in self.compared:
            return self.compared[key]
        memory = self.memories.setdefault(image, {}) if support.number is None else None
        pair = self.model.meta.comparisons(query, group_encoding(support.encoding, 1, 1), memory)
        comparison = {name: tensor.flatten(0, 1) for name, tensor in pair.items()}
        if support.number is not None:
            self.compared[key] = comparison
        return comparison


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _detached_support(support: Support) -> Support:
    return Support(_detached(support.encoding), support.number)
