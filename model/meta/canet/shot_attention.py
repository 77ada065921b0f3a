"""CANet's attention over K supports, as the paper describes it; no code of it was released.

Zhang et al., "CANet", CVPR 2019, section 4.3. The paper gives neither the stride of the pooling nor paddings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewseg.model.layer.tiled import TiledConv


class ShotAttention(nn.Module):
    """Score every support by a comparison with the query, separate from the one that is segmented.

    Args:
        channels: channels of the feature and of the prototypes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TiledConv(channels, channels, channels)
        self.score = nn.Sequential(
            nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.Conv2d(channels, 1, 3, padding=1)
        )

    def forward(self, attended: Tensor, prototypes: Tensor) -> Tensor:
        """Return weights [B,K] that sum to one.

        Args:
            attended: ``conv.over_maps`` of the query's feature, [B,C,h,w].
            prototypes: prototypes of the supports, [B,K,C].
        """
        grid = tuple(attended.shape[-2:])
        scores = [
            self.score(attended + self.conv.over_vectors(prototype, grid)).mean((1, 2, 3))
            for prototype in prototypes.unbind(1)
        ]
        return torch.stack(scores, 1).softmax(1)
