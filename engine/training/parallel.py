"""A network as its training runs it: compiled, over several processes, or as it is."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from fewseg.model.contract import Network
from fewseg.util import distributed
from fewseg.util.errors import UserError


def synchronised(model: Network, device: torch.device) -> Network:
    """Let BatchNorms that learn see the batch of all GPUs, where there are several."""
    # A batch of what depends on it is an episode's.
    if distributed.world_size() > 1 and device.type == "cuda" and not model.batch_dependent:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def wrapped(model: Network, *, compiled: bool) -> nn.Module:
    """Return the model as its steps run it: compiled, distributed, or as it is.

    Raises:
        UserError: several processes cannot train it.
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
