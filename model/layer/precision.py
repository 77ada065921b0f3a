"""Computations that stay in float32 where the network runs under autocast.

Rounded to the 8 bits of bfloat16, cosines that differ by less than a hundredth are equal. Priors scale such
differences up to [0,1], a softmax over positions sharpens them, and the distance of two Gram matrices is a
difference of many of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_float32(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function of tensors compute in float32 under autocast; elsewhere nothing changes."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        kind = _kind(args)
        if not torch.is_autocast_enabled(kind):
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            raised: Any = [_raised(value) for value in args]
            named: Any = {name: _raised(value) for name, value in kwargs.items()}
            return function(*raised, **named)

    return run


def _kind(values: tuple[Any, ...]) -> str:
    """Return the type of the device of the first tensor."""
    for value in values:
        if isinstance(value, Tensor):
            return value.device.type
    return "cpu"


def _raised(value: Any) -> Any:
    reduced = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if reduced else value
