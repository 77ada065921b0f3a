"""Backbones that see more than RGB, such as a mask, and weights of those that do not."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fewseg.model.contract import Backbone

_RGB = 3


def with_own_channels(state: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Return ``state`` with the filters of further channels, which it lacks, as ``backbone`` has them."""
    first = next(iter(backbone.state_dict()))
    own, given = backbone.state_dict()[first], state.get(first)
    if given is None or given.ndim != own.ndim or given.shape[1] >= own.shape[1]:
        return dict(state)
    return {**state, first: torch.cat([given, own[:, given.shape[1] :].to(given)], 1)}


def on_rgb(backbone: Backbone) -> Backbone:
    """Return the same network for RGB alone: itself, or a copy without the filters of further channels."""
    if next(backbone.parameters()).shape[1] == _RGB:
        return backbone
    plain = copy.deepcopy(backbone)
    first = next(module for module in plain.modules() if isinstance(module, nn.Conv2d))
    first.weight, first.in_channels = nn.Parameter(first.weight[:, :_RGB].detach()), _RGB
    return plain
