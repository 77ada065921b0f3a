"""The head that computes one map per way: it adds a prototype to every position and classifies the sum."""

from __future__ import annotations

from torch import Tensor, nn


class MapHead(nn.Module):
    """A head that returns one logit per way and position.

    Args:
        project: layer that brings features to the number of channels of the prototypes.
        channels: channels of the prototypes.
        joint_maps: number of maps that are classified together, in their order, each reduced to an eighth of
            the channels; 0 classifies every map separately, with the same weights.
        activate: whether an activation follows the sum.
        block: whether a 3x3 convolution and an activation precede the classifier.
    """

    def __init__(
        self,
        project: nn.Module,
        channels: int,
        *,
        joint_maps: int = 0,
        activate: bool = True,
        block: bool = False,
    ) -> None:
        super().__init__()
        self.joint_maps, self.activate = joint_maps, activate
        self.project = project
        self.fusion: nn.Module = nn.Identity()
        if block:
            self.fusion = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        if joint_maps:
            reduced = max(1, channels // 8)
            self.reduce = nn.Conv2d(channels, reduced, 1)
            self.classifier = nn.Conv2d(joint_maps * reduced, joint_maps, 1)
        else:
            self.classifier = nn.Conv2d(channels, 1, 1)

    def forward(self, feature: Tensor, prototype: Tensor) -> Tensor:
        """Projected features [B,C,h,w] and prototypes [B,P,C] -> logits [B,P,h,w].

        Raises:
            ValueError: the maps are classified together, and P is not ``joint_maps``.
        """
        count = prototype.shape[1]
        if self.joint_maps not in (0, count):
            raise ValueError(
                f"a joint head for {self.joint_maps} maps cannot make {count} (one per way); set option "
                "'ways' to those of the episodes and retrain, or take segment_head: shared"
            )
        maps = feature.unsqueeze(1) + prototype[..., None, None]
        maps = self.fusion((maps.relu() if self.activate else maps).flatten(0, 1))
        if self.joint_maps:
            return self.classifier(self.reduce(maps).unflatten(0, (-1, count)).flatten(1, 2))
        return self.classifier(maps).unflatten(0, (-1, count))[:, :, 0]
