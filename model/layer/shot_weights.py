"""BAM's weighting of K supports by how alike their scenes are to the query's.

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
"""``Learning.shot_bound`` of the methods that weigh their supports so."""


@dataclass(frozen=True)
class ShotWeightOptions:
    """Options of the weights of K supports.

    Attributes:
        kshot_trans_dim: hidden width of the network that weighs K supports; 0 for a linear one.
        shot_weights: ``learned`` as published, which binds a checkpoint to its K; ``uniform`` runs a 1-shot
            checkpoint with any K.
    """

    kshot_trans_dim: Hidden = 2
    shot_weights: Literal["learned", "uniform"] = "learned"

    @property
    def keeps_order(self) -> bool:
        """Whether every weight returns to the support that it was computed for."""
        return True


@dataclass(frozen=True)
class RankedShotWeightOptions(ShotWeightOptions):
    """Options of the weights of K supports in methods whose published code leaves them in ascending order.

    Attributes:
        kshot_trans_dim, shot_weights: see ``ShotWeightOptions``.
        kshot_unsort: ``legacy`` as published gives the weight of the r-th most similar support to the r-th
            support; ``fixed`` returns every weight to the support that it was computed for.
    """

    kshot_unsort: Literal["legacy", "fixed"] = "legacy"

    @property
    def keeps_order(self) -> bool:
        return self.kshot_unsort == "fixed"


class ShotWeights(nn.Module):
    """Give every support a weight; the weights of an episode sum to one.

    A small network reads the Gram distances in ascending order, so learned weights are bound to K: a model
    trained with K shots needs K shots, or one, which needs no weight. Uniform weights need no training and
    take any K.

    Args:
        build: says K and which features make the Gram matrices.
        options: a hidden width of 0 is a single linear map that starts at uniform weights.
    """

    def __init__(self, build: BuildArguments, options: ShotWeightOptions) -> None:
        super().__init__()
        learned = options.shot_weights == "learned"
        self.shot = build.shot if learned else None
        self.low_feature = build.low_feature
        self.keeps_order = options.keeps_order
        self.network = _network(build.shot, options.kshot_trans_dim) if learned and build.shot > 1 else None

    def encode(self, features: Mapping[str, Tensor]) -> Encoding:
        """Return what the weights need to know of an image."""
        return {} if self.network is None else {GRAM: scene_gram(features, self.low_feature)}

    def forward(self, query: Encoding, support: Encoding) -> Tensor:
        """Return weights [B,K].

        Raises:
            ValueError: the weights were learned for another K.
        """
        some = next(iter(support.values()))
        batch, shots = some.shape[:2]
        if shots == 1:
            return torch.ones(batch, 1, device=some.device)
        if self.shot not in (None, shots):
            raise ValueError(
                f"the episode has {shots} shots, the support weights were learned for {self.shot}; "
                f"retrain with shot: {shots}, or set shot_weights: uniform"
            )
        if self.network is None:
            return torch.full((batch, shots), 1 / shots, device=some.device)
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
