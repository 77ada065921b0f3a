"""The operations on a pretended GPU, those of backward passes and of optimizers included."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.pretended.memory import GPU, MixtureError, PretendedGpu, Storages, address, project_line

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class Operations(TorchDispatchMode):
    """Gives the results of operations the place of their arguments, refuses mixtures and counts waits."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu, self.undecided = gpu, Storages()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):  # in inference mode they arrive whole
            with self:
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not given and torch._C._current_graph_task_id() != -1:
            return self._undecided(func(*args, **kwargs))
        self._decide(given)
        self.gpu.read(given)
        addresses = {address(tensor): tensor in self.gpu.resident for tensor in given}
        if True not in addresses.values():
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        self._refuse(name, args, given)
        self._count(name, args, kwargs)
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        fresh = [tensor for tensor in made if address(tensor) not in addresses]
        if name != "copy_" and any(addresses.get(address(tensor)) is False for tensor in made):
            raise MixtureError(f"{name}: writes a result of the GPU to main memory in {project_line()}")
        self.gpu.operations += bool(fresh) or func._schema.is_mutable
        self.gpu.resident.add(fresh)
        return result

    def _undecided(self, made: Tensor) -> Tensor:
        """What a backward pass creates lies where it is used; the engine would have it on the real device."""
        self.undecided.add([made])
        return made

    def _decide(self, given: list[Tensor]) -> None:
        if self.gpu.place(given) == GPU:
            self.gpu.resident.add(tensor for tensor in given if tensor in self.undecided)

    def _refuse(self, name: str, args: Any, given: list[Tensor]) -> None:
        """Raise MixtureError if CUDA would."""
        outside = [tensor for tensor in given if tensor not in self.gpu.resident]
        if name in _INDEXING and args[0] in self.gpu.resident:  # indices may lie in main memory
            outside = [tensor for tensor in outside if not any(tensor is index for index in args[1])]
        strict = name in _STRICT
        if name != "copy_" and any(tensor.dim() or strict for tensor in outside):
            shapes = [f"{list(t.shape)} on {self.gpu.place([t]).type}" for t in given]
            raise MixtureError(f"{name}: {', '.join(shapes)}, in {project_line()}")
        if name in _PRODUCTS and not all(t.is_floating_point() or t.is_complex() for t in given):
            raise MixtureError(f"{name}: CUDA has no products of integers, in {project_line()}")

    def _count(self, name: str, args: Any, kwargs: Any) -> None:
        """Count what makes the host wait."""
        if name == "copy_":
            if (args[0] in self.gpu.resident) != (args[1] in self.gpu.resident):
                non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
                self.gpu.copies(args[1], args[0], non_blocking, "copy_")
        elif name in _INDEXING:
            indices = [index for index in args[1] if index is not None]
            masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
            filled = name != "index" and len(masks) == len(indices) == 1 and args[2].numel() == 1
            if any(index not in self.gpu.resident for index in indices):
                self.gpu.wait("copy to GPU (index)")
            elif masks and not (filled and args[2] not in self.gpu.resident):
                self.gpu.wait("boolean index")
        elif name == "repeat_interleave":
            if kwargs.get("output_size") is None:
                self.gpu.wait(name)
        elif name in _WAITS:
            self.gpu.wait(_WAITS[name])


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE.name)


_WAITS = {
    **{"_local_scalar_dense": "item", "nonzero": "nonzero", "masked_select": "masked_select"},
    **{"bincount": "bincount", "equal": "equal", "allclose": "allclose"},
    **{"multinomial": "multinomial", "histc": "histc"},
    **dict.fromkeys(("_unique", "_unique2", "unique_dim", "unique_consecutive"), "unique"),
    **{"_linalg_check_errors": "linalg"},
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_STRICT = {"cat", "stack"}
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "convolution"}
