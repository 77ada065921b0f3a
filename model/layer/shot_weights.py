"""BAM's weighting of K supports by the similarity of their scenes to the query's.

Lang et al., "Learning What Not to Segment", CVPR 2022, section 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fewseg.model.contract import BuildArguments
from fewseg.model.encoding import GRAM, Encoding
from fewseg.model.layer.gram import gram_distance, scene_gram
from fewseg.model.options import Hidden

SHOT_BOUND = {"shot_weights.network": ("shot_weights", "uniform")}
"""``Learning.shot_bound`` of the methods that use these weights."""


@dataclass(frozen=True)
class ShotWeightOptions:
    """Options of the weights of K supports.

    Attributes:
        kshot_trans_dim: hidden width of the network that computes the weights; 0 for a linear one.
        shot_weights: ``learned`` as published, which binds a checkpoint to its K; with ``uniform`` a 1-shot
            checkpoint works for any K.
    """

    kshot_trans_dim: Hidden = 2
    shot_weights: Literal["learned", "uniform"] = "learned"

    @property
    def keeps_order(self) -> bool:
        """Whether every support gets the weight that was computed for it."""
        return True


@dataclass(frozen=True)
class RankedShotWeightOptions(ShotWeightOptions):
    """Options of the weights of K supports in methods whose published code leaves them in ascending order.

    Attributes:
        kshot_trans_dim, shot_weights: see ``ShotWeightOptions``.
        kshot_unsort: ``legacy`` as published gives the weight of the r-th most similar support to the r-th
            support; with ``fixed``, every support gets the weight that was computed for it.
    """

    kshot_unsort: Literal["legacy", "fixed"] = "legacy"

    @property
    def keeps_order(self) -> bool:
        return self.kshot_unsort == "fixed"


class ShotWeights(nn.Module):
    """Compute a weight for every support; the weights of an episode sum to one.

    A small network reads the Gram distances in ascending order, so learned weights are bound to K: a model
    trained with K shots works for K shots, or for one shot, whose weight is always 1. Uniform weights need no
    training and work for any K.

    Args:
        build: gives K and the feature of the Gram matrices.
        options: a hidden width of 0 means a single linear layer that is initialised to uniform weights.
    """

    def __init__(self, build: BuildArguments, options: ShotWeightOptions) -> None:
        super().__init__()
        learned = options.shot_weights == "learned"
        self.shot = build.shot if learned else None
        self.low_feature = build.low_feature
        self.keeps_order = options.keeps_order
        self.network = _network(build.shot, options.kshot_trans_dim) if learned and build.shot > 1 else None

    def encode(self, features: Mapping[str, Tensor]) -> Encoding:
        """Return the entries that the weights need of an image's encoding."""
        return {} if self.network is None else {GRAM: scene_gram(features, self.low_feature)}

    def forward(self, query: Encoding, support: Encoding) -> Tensor:
        """Return weights [B,K].

        Raises:
            ValueError: the weights were learned for another K.
        """
        entry = next(iter(support.values()))
        batch, shots = entry.shape[:2]
        if shots == 1:
            return torch.ones(batch, 1, device=entry.device)
        if self.shot not in (None, shots):
            raise ValueError(
                f"the episode has {shots} shots, the support weights were learned for {self.shot}; "
                f"retrain with shot: {shots}, or set shot_weights: uniform"
            )
        if self.network is None:
            return torch.full((batch, shots), 1 / shots, device=entry.device)
        ascending, order = gram_distance(query[GRAM], support[GRAM]).sort(dim=1)
        weight = self.network(ascending[:, :, None, None])[:, :, 0, 0]
        if self.keeps_order:
            weight = weight.gather(1, order.argsort(1))
        return weight.softmax(1)


def fuse_shots(values: Tensor, weights: Tensor) -> Tensor:
    """Sum values [B,K,...] over the shots under weights [B,K] -> [B,...]."""
    return (values * weights.view(*weights.shape, *[1] * (values.ndim - 2))).sum(1)


def _network(shot: int, hidden: int) -> nn.Module:
    if hidden:
        return nn.Sequential(nn.Conv2d(shot, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, shot, 1))
    network = nn.Conv2d(shot, shot, 1, bias=False)
    nn.init.constant_(network.weight, 1 / shot)
    return network
