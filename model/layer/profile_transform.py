"""The layers of unidirectional pooling, by which RARE retains the layout of a support object.

C. Lang et al., "Retain and Recover: Delving into Information Loss for Few-Shot Segmentation", IEEE TIP 2023.
"""

from __future__ import annotations

from torch import Tensor, nn

from fewseg.model.layer.block import reduction


class ProfileTransform(nn.Module):
    """Two convolutions over the outer product of a query profile and a support profile.

    Args:
        channels: channels of both profiles.
        softmax_axes: the axes of the outer product [B,C,n,n] over which the softmax extends.
    """

    def __init__(self, channels: int, *softmax_axes: int) -> None:
        super().__init__()
        self.softmax_axes = softmax_axes
        self.pointwise = reduction(channels, channels)
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.ReLU(inplace=True)
        )

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the transformed outer product [B,C,n,n] of two profiles [B,C,n], after a softmax over it."""
        pairs = rows.unsqueeze(3) * columns.unsqueeze(2)
        if len(self.softmax_axes) == 1:
            weights = pairs.softmax(*self.softmax_axes)
        else:
            weights = pairs.flatten(2).softmax(2).view_as(pairs)
        activated = self.pointwise(weights)
        return activated + self.spatial(activated)
