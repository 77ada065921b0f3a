"""A network as its training runs it: compiled, over several processes, or as it is."""

from __future__ import annotations

import torch
from torch import nn

from fewseg.model.fewshot import FewShotModel
from fewseg.util import distributed
from fewseg.util.errors import UserError


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Let BatchNorms that learn see the batch of all GPUs, where there are several."""
    by_process = isinstance(model, FewShotModel) and model.meta.batch_dependent  # its batch is an episode's
    if distributed.world_size() > 1 and device.type == "cuda" and not by_process:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def wrapped(model: nn.Module, *, compiled: bool) -> nn.Module:
    """Return the model as its steps run it: compiled, distributed, or as it is.

    Raises:
        UserError: several processes cannot train it.
    """
    forward = torch.compile(model) if compiled else model
    if distributed.world_size() > 1 and getattr(model, "turns", ()):
        raise UserError(
            "this method learns in turns, which is for a single process; start it without torchrun"
        )
    if distributed.world_size() > 1:
        forward = nn.parallel.DistributedDataParallel(forward)
    return forward
