"""The operations that a computation gives to the device: their number, FLOPs, and bytes moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_ALLOCATIONS = {
    *("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"),
    *("detach", "lift_fresh", "alias", "_unsafe_view", "_local_scalar_dense", "set_", "resize_"),
}
"""Operations that reserve memory, name a tensor or read a number: they start no kernel."""


@dataclass(frozen=True)
class Operation:
    """One kernel.

    Attributes:
        name: PyTorch's name of the operation.
        flops: two for every multiplication with addition, of convolutions and matrix products only.
        moved: bytes of its inputs and outputs.
        reduced: whether its inputs are bfloat16.
    """

    name: str
    flops: int
    moved: int
    reduced: bool


class OperationCounter(TorchDispatchMode):
    """Notes every operation that runs while it is active, those of the backward pass included.

    An operation counts as one kernel. A GPU needs more for some (the backward pass of a convolution has two
    or three) and fewer where ``torch.compile`` merges them.

    Attributes:
        operations: what ran, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:  # a question, which has no parts
            return func(*args, **kwargs)
        packet = func._overloadpacket
        if packet not in flop_registry:  # a compound operation is noted as its parts
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if not _is_view(func) and packet.__name__ not in _ALLOCATIONS:
            formula = flop_registry.get(packet)
            flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=result))
            inputs = list(_tensors((args, kwargs)))
            moved = sum(map(_bytes, {id(x): x for x in inputs}.values())) + sum(map(_bytes, _tensors(result)))
            reduced = any(x.dtype == torch.bfloat16 for x in inputs)
            self.operations.append(Operation(packet.__name__, flops, moved, reduced))
        return result


def operations_of(action: Callable[[], Any]) -> list[Operation]:
    """Run ``action`` and return its operations."""
    with OperationCounter() as counter:
        action()
    return counter.operations


def _is_view(func: Any) -> bool:
    """Return whether an operation only names a part of its input."""
    return any(
        returned.alias_info is not None and not returned.alias_info.is_write
        for returned in func._schema.returns
    )


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor; an expanded one is as large as what it repeats."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
