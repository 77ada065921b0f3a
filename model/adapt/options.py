"""The options of test-time adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fewseg.model.options import Between, Count, Share, Weight


@dataclass(frozen=True)
class EFTNetOptions:
    """Options of EFTNet.

    Attributes:
        rounds: number of predictions that are compared, with one learning step between two of them.
        lr: learning rate of the first step.
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

    def rate(self, round_number: int) -> float:
        """Return the learning rate of the step after a round, counted from 1."""
        return self.lr * (1 - (round_number - 1) / (self.rounds + 1)) ** self.power + 1e-10
