"""The options of test-time adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fewseg.model.options import Between, Count, CountOrNone, OptionError, Share, Weight


@dataclass(frozen=True)
class EFTNetOptions:
    """Options of EFTNet.

    Attributes:
        rounds: number of predictions that are compared, with one learning step between two of them.
        lr: learning rate of the first step; with 0 nothing is learnt, and the rounds only blend.
        power: power of the polynomial decay of the learning rate; 0 for no decay.
        weighting: shares of the supports' guidance and of the query's own in the blend.
        q2s_filt_para: share of the predicted foreground that is treated as confident.
        sr_aux_weight1: weight of the meta-learner's own loss in addition to the ensemble's. Published: 0.9
            for ResNets on PASCAL.
        momentum: of stochastic gradient descent.
        weight_decay: of stochastic gradient descent.
        discrimination_mask: the query's mask when it is used to segment the supports: its ``pseudo`` label,
            or its ``ground_truth``, as in the published code. The latter gives the method the answer, so its
            results are those of an oracle.
        q2s_empty: the confident region if too little foreground is predicted: the ``whole_image``, as
            published, or ``none``, so that nothing is blended in.
        include_zero_round: whether the unadapted model's prediction takes part in the comparison.
        choice: the round whose prediction is returned: the one with the best ``score``, as published, the
            ``last`` one, or the number of a fixed one, 0 for the unadapted model. Without scores the supports
            are not segmented, which saves time. A round that diverged is replaced by the one before it.
        learn_from: the ``query``, as published, or the ``supports``: the rival that learns from the annotated
            supports only. Every support is segmented with the other ones and compared with its own mask, the
            mean loss over the supports is minimised, and nothing of the query is blended in.
    """

    rounds: Count = 5
    lr: Annotated[float, Between(0, 1e9)] = 0.005
    power: Annotated[float, Between(0, 100)] = 0.9
    weighting: tuple[Share, Share] = (0.8, 0.2)
    q2s_filt_para: Share = 0.2
    sr_aux_weight1: Weight = 1.0
    momentum: Annotated[float, Between(0, 0.9999)] = 0.9
    weight_decay: Weight = 1e-4
    discrimination_mask: Literal["pseudo", "ground_truth"] = "pseudo"
    q2s_empty: Literal["whole_image", "none"] = "whole_image"
    include_zero_round: bool = False
    choice: Literal["score", "last"] | CountOrNone = "score"
    learn_from: Literal["query", "supports"] = "query"

    def __post_init__(self) -> None:
        if isinstance(self.choice, int) and self.choice > self.rounds:
            raise OptionError(
                "options.choice",
                f"option 'choice' must be at most the number of rounds, {self.rounds}, got {self.choice}",
            )

    @property
    def fixed_round(self) -> int | None:
        """The number of the round that is returned whatever its score; None where the score decides."""
        if self.choice == "score":
            return None
        return self.rounds if self.choice == "last" else int(self.choice)

    def rate(self, round_number: int) -> float:
        """Return the learning rate of the step after a round, counted from 1; exactly 0 if ``lr`` is 0."""
        if self.lr == 0:
            return 0.0
        return self.lr * (1 - (round_number - 1) / (self.rounds + 1)) ** self.power + 1e-10
