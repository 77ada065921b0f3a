"""The mid-level features that PFENet's family compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fewseg.model.contract import Backbone
from fewseg.model.layer.resize import resize_like


def middle_features(features: Mapping[str, Tensor], order: Sequence[str] = ("layer3", "layer2")) -> Tensor:
    """Concatenate ``layer3`` and ``layer2`` on the grid of ``layer3``; in VGG16, layer2 is twice as fine."""
    return torch.cat([resize_like(features[name], features["layer3"]) for name in order], 1)


def middle_channels(backbone: Backbone) -> int:
    """Channels of ``middle_features``."""
    return backbone.channels["layer3"] + backbone.channels["layer2"]
