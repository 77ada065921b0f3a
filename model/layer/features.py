"""The mid-level features that PFENet's family compares."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from model.interface import Backbone
from model.layer.resize import resize_like


def middle_features(features: Mapping[str, Tensor]) -> Tensor:
    """Concatenate ``layer3`` and ``layer2`` on the grid of ``layer3``; in VGG16, layer2 is twice as fine."""
    return torch.cat([features["layer3"], resize_like(features["layer2"], features["layer3"])], 1)


def middle_channels(backbone: Backbone) -> int:
    """Channels of ``middle_features``."""
    return backbone.channels["layer3"] + backbone.channels["layer2"]
