"""MIANet's general information module: a prototype from words and supports, taught by a triplet loss.

Yang et al., "MIANet", CVPR 2023 (general information module).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import normalize, pairwise_distance

_HIDDEN = 128


def generator_layers(inputs: int, outputs: int) -> nn.Sequential:
    """Return the general information generator: word vector and instance prototype -> general prototype."""
    first, second = nn.Linear(inputs, _HIDDEN), nn.Linear(_HIDDEN, outputs)
    for layer in (first, second):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.constant_(layer.bias, 0.01)
    return nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.2), second, nn.Dropout(0.3))


def local_feature_layers(channels: int) -> nn.Sequential:
    """Return three 3x3 convolutions that compute local features on a grid four times coarser."""
    layers: list[nn.Module] = []
    for stride, padding in ((2, 0), (2, 1), (1, 1)):
        layers += [nn.Conv2d(channels, channels, 3, stride, padding, bias=False), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def triplet_loss(anchor: Tensor, local: Tensor, inside: Tensor, margin: float) -> Tensor:
    """Return the triplet loss of the general prototype and local features of the supports.

    The positive is the object's local feature that is farthest from the prototype, the negative is the mean
    of the local features outside the object.

    Args:
        anchor: general prototypes [B,C].
        local: local features of the supports, [B,K,P,C].
        inside: whether they belong to the object, bool [B,K,P]. A support without features of both kinds is
            ignored.
        margin: by how much the negative must be farther from the prototype than the positive.
    """
    anchor, local = normalize(anchor, dim=-1)[:, None], normalize(local, dim=-1)
    outside = ~inside
    farthest = pairwise_distance(anchor[:, None], local).masked_fill(outside, 0).amax(-1)
    weight = outside.unsqueeze(-1).to(local.dtype)
    mean = (local * weight).sum(2) / weight.sum(2).clamp_min(1)
    counted = inside.any(-1) & outside.any(-1)
    loss = (margin + farthest - pairwise_distance(anchor, mean)).clamp_min(0) * counted
    return loss.sum() / counted.sum().clamp_min(1)
