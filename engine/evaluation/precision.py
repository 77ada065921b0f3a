"""The precision in which a network is tested."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from typing import Any

import torch

from fewseg.util.log import get_log


def autocast_of(precision: str, device: torch.device) -> AbstractContextManager[Any] | None:
    """Return the context in which a network is tested in a precision; None for float32.

    A CPU without instructions for the precision emulates them, which is slower than float32: that is logged.

    Args:
        precision: ``float32``, ``bfloat16`` or ``float16``, the value of ``Test_Finetune.precision``.
        device: device of the network.
    """
    if precision == "float32":
        return None
    if device.type == "cpu" and not has_instructions(precision):
        get_log("test").warning(
            "Test_Finetune.precision %s: this CPU has no instructions for it and is slower than with float32",
            precision,
        )
    return torch.autocast(device.type, getattr(torch, precision))


def has_instructions(precision: str) -> bool:
    """Return whether this CPU computes products in ``bfloat16`` or ``float16`` itself.

    Where torch cannot tell, as on ARM, it is taken to do so.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    if precision == "float16":
        return torch.cpu._is_amx_fp16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
