"""Where reading a value makes the host wait, so that shapes must not depend on values.

A GPU works behind the host. Whenever the host needs a value, such as the number of positions under a mask, it
waits until the GPU has computed everything before it, and then the GPU waits for the host.
"""

from __future__ import annotations

import torch
from torch import Tensor


def would_wait(tensor: Tensor) -> bool:
    """Return whether the host would wait for the values of ``tensor``; on a CPU they are simply there.

    Where the form that is fast on a CPU needs such values, a form of fixed shape takes its place elsewhere.
    Users call it through this module, so that tests can choose the form on a CPU.
    """
    return tensor.device.type != "cpu"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``; the host does not wait for its copy from main memory to a GPU."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
