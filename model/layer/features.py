"""The mid-level features that PFENet's family compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fewseg.model.layer.resize import resize_like

DEEPER_FIRST = ("middle.1", "middle.0")
SHALLOWER_FIRST = ("middle.0", "middle.1")


def middle_features(features: Mapping[str, Tensor], order: Sequence[str] = DEEPER_FIRST) -> Tensor:
    """Concatenate both middle features on the grid of the deeper one.

    The shallower one is resized where its grid is finer, as VGG16's is.
    """
    return joined_features(features, order, "middle.1")


def joined_features(features: Mapping[str, Tensor], names: Sequence[str], like: str) -> Tensor:
    """Concatenate the features ``names`` on the grid of the feature ``like``."""
    return torch.cat([resize_like(features[name], features[like]) for name in names], 1)
