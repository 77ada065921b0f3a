"""EFTNet: fine-tuning on the query at test time.

"EFTNet: an efficient fine-tuning method for few-shot segmentation", Applied Intelligence, 2024. A trained
model segments the query and is fine-tuned on its own prediction for a few rounds. In every round the query,
masked by its most confident foreground, is blended in as a further support. The prediction that serves best
to segment the supports is returned.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import torch
from torch import nn

from fewseg.model.adapt.episode import AdaptedEpisode
from fewseg.model.adapt.options import EFTNetOptions
from fewseg.model.adapt.support_tuning import SupportTunedEpisode
from fewseg.model.encoding import CHOSEN_ROUND, ROUND_LOGITS
from fewseg.model.episode import Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.records import Map, MapKind, SupportView


class EFTNet:
    """Adapt a trained model to every episode, and restore it after the episode.

    Args:
        model: a few-shot model whose guidance can be blended with that of a further support.
        options: see ``EFTNetOptions``.

    Attributes:
        Options: the type of its options.
        Adapted: the type of an episode under adaptation that learns from its query.
        rounds: number of rounds, each of which gives a prediction.
        oracle: whether the choice of the round uses the query's ground truth, which results must report.

    Raises:
        ValueError: the method cannot be adapted; the message gives the reason.
    """

    Options = EFTNetOptions
    Adapted = AdaptedEpisode

    def __init__(self, model: FewShotModel, options: EFTNetOptions) -> None:
        _check_adaptable(model)
        self.model = model
        self.options = options
        self.rounds = options.rounds
        self.oracle = options.discrimination_mask == "ground_truth"
        if self.oracle:
            warnings.warn(
                "EFTNet chooses its round by the query's ground truth: these are an oracle's results",
                stacklevel=3,
            )

    @property
    def maps(self) -> tuple[Map, ...]:
        """The parts of its predictions that figures show; see ``Published.maps``."""
        rounds = Map(ROUND_LOGITS, "round #", MapKind.FOREGROUND, first=0)
        return (rounds, *self.model.maps)

    def __call__(self, episode: Episode) -> Prediction:
        """Segment the queries of ``episode``, each after a separate adaptation.

        Returns:
            Logits and parts of the chosen round, and as further parts ``round`` [B] and ``round_logits``
            [B,1+rounds,2,H,W] (see ``CHOSEN_ROUND``, ``ROUND_LOGITS``), and ``scores`` [B,rounds], NaN where
            none was computed.
        """
        singles = [self._adapt(single) for single in _split(episode)]
        parts = {
            name: torch.cat([p.parts[name] for p in singles])
            for name in singles[0].parts
            if all(name in p.parts and p.parts[name].shape == singles[0].parts[name].shape for p in singles)
        }
        return Prediction(torch.cat([p.logits for p in singles]), parts)

    @contextmanager
    def adaptation(self, episode: Episode) -> Iterator[AdaptedEpisode]:
        """Return a context of the adaptation to an episode with one query; it restores the parameters."""
        model = self.model
        parameters = self.tuned_parameters() if self.options.lr > 0 else []
        kind = self.Adapted if self.options.learn_from == "query" else SupportTunedEpisode
        saved = [parameter.detach().clone() for parameter in parameters]
        trained = [parameter.requires_grad for parameter in parameters]
        training = model.training
        model.eval()
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(bool(parameters)):
                for parameter in parameters:
                    parameter.requires_grad_(True)
                yield kind(model, self.options, episode, parameters)
        finally:
            with torch.no_grad():
                for parameter, value, requires_grad in zip(parameters, saved, trained, strict=True):
                    parameter.copy_(value)
                    parameter.requires_grad_(requires_grad)
                    parameter.grad = None
            model.train(training)

    def tuned_parameters(self) -> list[nn.Parameter]:
        """Return the trained parameters: the head's, never the backbone's or the base learner's.

        Prototype methods have no head, so their rounds differ only by the blended guidance.
        """
        adaptation = self.model.meta.adaptation
        fixed = tuple(f"{name}." for name in adaptation.fixed) if adaptation else ()
        tuned = [
            p for name, p in self.model.meta.named_parameters() if not (fixed and name.startswith(fixed))
        ]
        return tuned if self.model.ensemble is None else [*tuned, *self.model.ensemble.parameters()]

    def _adapt(self, episode: Episode) -> Prediction:
        with self.adaptation(episode) as adapted:
            predictions, scores, finite = [adapted.unadapted()], [], []
            least = predictions[0].logits.new_zeros(())
            if self.options.include_zero_round and self.options.fixed_round is None:
                least = adapted.score(predictions[0])
            for current in range(1, self.options.rounds + 1):
                outcome = adapted.round(predictions[-1])
                if current < self.options.rounds:
                    adapted.step(outcome, self.options.rate(current))
                predictions.append(outcome.prediction)
                scores.append(outcome.score)
                finite.append(outcome.is_finite.to(least.dtype))
        compared = torch.stack([least, *scores, *finite]).tolist()  # the host waits here, once per episode
        number = self._chosen(compared[: 1 + self.rounds], compared[1 + self.rounds :])
        parts = {
            CHOSEN_ROUND: torch.tensor([number]),
            "scores": torch.tensor([compared[1 : 1 + self.rounds]]),
            ROUND_LOGITS: torch.stack([prediction.logits for prediction in predictions], 1),
        }
        return Prediction(predictions[number].logits, {**predictions[number].parts, **parts})

    def _chosen(self, scores: list[float], finite: list[float]) -> int:
        """Return the number of the round whose prediction is returned, 0 for the unadapted model.

        Args:
            scores: least score that a round must reach, then the scores of all rounds.
            finite: for every round 1 if its prediction is finite, else 0.
        """
        if self.options.fixed_round is not None:
            return max((n + 1 for n in range(self.options.fixed_round) if finite[n]), default=0)
        best = 0
        for number, score in enumerate(scores):
            if score >= scores[best]:  # of equal scores the later one, as published
                best = number
        return best


def _check_adaptable(model: FewShotModel) -> None:
    meta, name = model.meta, type(model.meta).__name__
    reason = None
    if meta.inputs.view is SupportView.MASKED_IMAGE:
        reason = (
            "its support branch sees the masked image, so the query cannot become a support from its features"
        )
    elif meta.inputs.view is SupportView.MASK_CHANNEL:
        reason = "its support branch sees the mask, so the query cannot become a support from its features"
    elif meta.inputs.batch_dependent:
        reason = "its encodings depend on the other images of the batch"
    elif meta.adaptation is None:
        reason = "nothing in its guidance can be blended with that of a further support"
    if reason is not None:
        raise ValueError(f"EFTNet cannot adapt {name}: {reason}; evaluate it without adaptation")


def _split(episode: Episode) -> Iterator[Episode]:
    if episode.ways != 1:
        raise ValueError(f"EFTNet adapts to one way at a time, the episode has {episode.ways}; set ways: 1")
    tensors = {f.name: getattr(episode, f.name) for f in fields(Episode)}
    for item in range(len(episode.query)):
        yield replace(
            episode, **{name: value[item : item + 1] for name, value in tensors.items() if value is not None}
        )
