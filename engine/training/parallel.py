"""Wrap a network for training: compiled, distributed over several processes, or neither."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from fewseg.model.contract import Network
from fewseg.util import distributed
from fewseg.util.errors import UserError


def synchronised(model: Network, device: torch.device) -> Network:
    """Synchronise the BatchNorms over all GPUs, if there are several."""
    # A model that depends on its batch computes its statistics from a single episode.
    if distributed.world_size() > 1 and device.type == "cuda" and not model.batch_dependent:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def wrapped(model: Network, *, compiled: bool) -> nn.Module:
    """Return the model as the training steps run it: compiled, distributed, or unchanged.

    Raises:
        UserError: the model cannot be trained by several processes.
    """
    forward: nn.Module = cast(nn.Module, torch.compile(model)) if compiled else model
    if distributed.world_size() > 1 and model.alternating:
        raise UserError(
            "this method minimises its losses in alternation, which is for a single process; start "
            "it without torchrun"
        )
    if distributed.world_size() > 1:
        forward = nn.parallel.DistributedDataParallel(forward)
    return forward
