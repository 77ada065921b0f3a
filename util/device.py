"""Copies between the CPU and a device that do not make the host wait longer than necessary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``; the host does not wait for a copy to a GPU.

    Such a copy starts from page-locked memory, which is kept until the copy has ended.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return int64 tensors on the CPU; the host waits once for all that lie on a device."""
    away = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    if not away:
        return list(tensors)
    joined = torch.cat([tensor.flatten() for tensor in away]).cpu()
    copies = iter(joined.split([tensor.numel() for tensor in away]))
    return [tensor if tensor.device.type == "cpu" else next(copies).view(tensor.shape) for tensor in tensors]
