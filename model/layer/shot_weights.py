"""BAM's weighting of K supports by their Gram distance to the query (Lang et al., eq. 14)."""

from __future__ import annotations

from torch import Tensor, nn


class ShotWeights(nn.Sequential):
    """Map the Gram distances of K supports to weights that sum to one.

    A small network reads the distances in ascending order, so the weights are bound to K: a model trained
    with K shots needs K shots.

    Args:
        shot: K, above 1.
        hidden: hidden width; 0 for a single linear map that starts at uniform weights.
        unsort: whether the weights return to the order of the supports. MSANet's published code leaves them
            sorted, BAM's does not.
    """

    def __init__(self, shot: int, hidden: int, *, unsort: bool = True) -> None:
        if hidden:
            super().__init__(nn.Conv2d(shot, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, shot, 1))
        else:
            super().__init__(nn.Conv2d(shot, shot, 1, bias=False))
            nn.init.constant_(self[0].weight, 1 / shot)
        self.unsort = unsort

    def forward(self, distance: Tensor) -> Tensor:
        """Turn distances [B,K] into weights [B,K]."""
        ascending, order = distance.sort(dim=1)
        weight = super().forward(ascending[:, :, None, None])[:, :, 0, 0]
        if self.unsort:
            weight = weight.gather(1, order.argsort(1))
        return weight.softmax(1)


def fuse_shots(values: Tensor, weights: Tensor) -> Tensor:
    """Sum values [B,K,...] over the shots under weights [B,K] -> [B,...]."""
    return (values * weights.view(*weights.shape, *[1] * (values.ndim - 2))).sum(1)
