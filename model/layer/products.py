"""Products of all positions of a map with many vectors, by which priors and similarities compare images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d


def products(features: Tensor, vectors: Tensor) -> Tensor:
    """Return the product of every position of ``features`` [B,C,h,w] with vectors [B,C,P], [B,P,h,w].

    On a CPU, a 1x1 convolution is about a fifth faster than the same product of matrices.
    """
    if features.device.type != "cpu":
        return torch.bmm(vectors.mT, features.flatten(2)).unflatten(2, features.shape[2:])
    images = zip(features.split(1), vectors.mT, strict=True)
    compared = [conv2d(image, kernel[:, :, None, None]) for image, kernel in images]
    return compared[0] if len(compared) == 1 else torch.cat(compared)  # joining one would copy it
