"""BAM's weighting of K supports by how alike their scenes are to the query's.

Lang et al., "Learning What Not to Segment", CVPR 2022, section 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fewseg.model.contract import Encoding, Setting
from fewseg.model.layer.gram import gram_distance, scene_gram

SHOT_BOUND = {"shot_weights.network": ("shot_weights", "uniform")}
"""``MetaLearner.shot_bound`` of the methods that weigh their supports so."""


class ShotWeights(nn.Module):
    """Give every support a weight; the weights of an episode sum to one.

    A small network reads the Gram distances in ascending order, so learned weights are bound to K: a model
    trained with K shots needs K shots, or one, which needs no weight. Uniform weights need no training and
    take any K.

    Args:
        setting: says K and which features make the Gram matrices.
        hidden: hidden width; 0 for a single linear map that starts at uniform weights.
        learned: whether weights are learned, or uniform.
        unsort: whether the weights return to the order of the supports. MSANet's published code leaves them
            sorted, BAM's does not.
    """

    def __init__(self, setting: Setting, hidden: int, *, learned: bool = True, unsort: bool = True) -> None:
        super().__init__()
        self.shot = setting.shot if learned else None
        self.low_feature = setting.low_feature
        self.unsort = unsort
        self.network = _network(setting.shot, hidden) if learned and setting.shot > 1 else None

    def encode(self, features: Mapping[str, Tensor]) -> Encoding:
        """Return what the weights need to know of an image."""
        return {} if self.network is None else {"gram": scene_gram(features, self.low_feature)}

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
        ascending, order = gram_distance(query["gram"], support["gram"]).sort(dim=1)
        weight = self.network(ascending[:, :, None, None])[:, :, 0, 0]
        if self.unsort:
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
