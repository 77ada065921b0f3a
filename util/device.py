"""Copies from a device for which the host waits only once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return int64 tensors on the CPU; the host waits once for all that lie on a device."""
    away = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    if not away:
        return list(tensors)
    joined = torch.cat([tensor.flatten() for tensor in away]).cpu()
    copies = iter(joined.split([tensor.numel() for tensor in away]))
    return [tensor if tensor.device.type == "cpu" else next(copies).view(tensor.shape) for tensor in tensors]
