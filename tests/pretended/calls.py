"""The calls of Python on a pretended GPU: they say where a tensor is to lie, and ask where it lies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from tests.pretended.memory import CPU, GPU, MixtureError, PretendedGpu, project_line


class Calls(TorchFunctionMode):
    """Decides the place of what Python's calls create, move, or ask for."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _ANSWERS and args[0] in self.gpu.resident:
            return _ANSWERS[func]
        if func in _MOVES:
            return self._move(func, args, kwargs)
        device, pin = kwargs.get("device"), kwargs.get("pin_memory")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        place = self.gpu.place(tensors) if device is None else torch.device(device)
        if (generator := kwargs.get("generator")) is not None and generator.device.type != place.type:
            raise MixtureError(f"{_name(func)}: a generator of {generator.device} for tensors on {place}")
        if func in _CONVERSIONS and place == GPU:
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy in {project_line()}")
        if func in _CONVERSIONS or func is Tensor.tolist:
            self.gpu.read(tensors)
        creates = (device is not None and place.type != "meta") or pin
        if not creates and not (place == GPU and func in _WITHOUT_OPERATIONS):
            return func(*args, **kwargs)
        return self._create(func, args, kwargs, place)

    def _create(self, func: Any, args: Any, kwargs: dict[str, Any], place: torch.device) -> Any:
        """Call a function that names its result's place, or whose operations are not those of a GPU."""
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        pin = kwargs.pop("pin_memory", False)
        if func is Tensor.tolist or (func in _FROM_DATA and place.type == "cuda"):
            self.gpu.wait(_name(func))
        with torch._C._DisableTorchDispatch():
            made = func(*args, **kwargs)
        made_tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        if place.type == "cuda":
            self.gpu.resident.add(made_tensors)
        if pin:
            self.gpu.pinned.add(made_tensors)
        return made

    def _move(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        copy = kwargs.pop("copy", False)
        if func is not Tensor.to:
            rest = _asked(GPU if func is Tensor.cuda else CPU, *rest, **kwargs)
            kwargs = {}
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*rest, **kwargs)
        others = [leaf for leaf in (*rest, *kwargs.values()) if isinstance(leaf, Tensor)]
        source = self.gpu.place([tensor])
        target = self.gpu.place(others) if others else device or source
        changes = {"dtype": dtype or tensor.dtype, "memory_format": memory_format or torch.preserve_format}
        if target.type == source.type:
            return Tensor.to(tensor, copy=copy, **changes)
        self.gpu.copies(tensor, None, non_blocking, "to")
        with torch._C._DisableTorchDispatch():
            moved = Tensor.to(tensor, copy=True, **changes)
        if target.type == "cuda":
            self.gpu.resident.add([moved])
        elif non_blocking:  # torch then takes pinned memory for the copy
            self.gpu.pinned.add([moved])
            self.gpu.coming.add([moved])
        return moved


def _asked(
    place: torch.device, device: Any = None, non_blocking: bool = False, memory_format: Any = None
) -> tuple[Any, ...]:
    """Turn the arguments of ``cuda`` and ``cpu`` into those of ``to``; they change no memory format here."""
    return place, None, non_blocking


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", func))


_ANSWERS: dict[Any, Any] = {
    Tensor.device.__get__: GPU,
    Tensor.is_cuda.__get__: True,
    Tensor.is_cpu.__get__: False,
    Tensor.get_device: 0,
    Tensor.record_stream: None,
}
_MOVES = {Tensor.to, Tensor.cuda, Tensor.cpu}
_CONVERSIONS = {Tensor.numpy, Tensor.__array__}
_FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray}
_WITHOUT_OPERATIONS = {Tensor.tolist, Tensor.__deepcopy__, torch.nn.functional.one_hot}
"""``tolist`` and ``deepcopy`` run none, and ``one_hot`` checks its classes on a CPU only."""
