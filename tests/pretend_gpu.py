"""A GPU that only pretends: tensors stay in main memory, and it is known which of them "lie on the GPU".

    with pretended_gpu() as gpu:
        model.to("cuda")
        training_step(model, episode.to("cuda"), optimizer)
    print(gpu.listed())    # what made the host wait, and the project's lines that asked for it

What CUDA refuses is refused too: operations on tensors of both places, ``numpy()`` of a tensor on the GPU, a
generator of the other place, and products of integers. Whatever would make the host wait for the GPU is
counted. Two modes work together: the calls of Python say where a tensor is to lie (``device=``, ``to``), and
the operations below them, those of backward passes and optimizers included, give their results the place of
their arguments. ``python -m tests.methods_on_gpu bam step`` lists the waits of a method.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.pretended_cuda import cuda_of

ROOT = Path(__file__).resolve().parent.parent
_OWN_FILES = {ROOT / "tests" / "pretend_gpu.py", ROOT / "tests" / "pretended_cuda.py"}
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


class MixtureError(RuntimeError):
    """An operation would mix main memory and the memory of the GPU."""


class Wait(NamedTuple):
    """Something for which the host waits until the GPU is done."""

    what: str
    line: str


class Storages:
    """A set of storages; one that is freed leaves it, and its address is not used again before."""

    def __init__(self) -> None:
        self._held: dict[int, StorageWeakRef] = {}
        self._most, self._lock = 1000, threading.Lock()

    def __contains__(self, tensor: Tensor) -> bool:
        return _address(tensor) in self._held

    def add(self, tensors: Iterable[Tensor]) -> None:
        with self._lock:
            for tensor in tensors:
                self._held[_address(tensor)] = StorageWeakRef(tensor.untyped_storage())
            if len(self._held) > self._most:
                self._held = {key: ref for key, ref in self._held.items() if not ref.expired()}
                self._most = max(1000, 2 * len(self._held))


class PretendedGpu:
    """What lies on the GPU, and what has been asked of it.

    Attributes:
        waits: everything for which the host waited.
        operations: number of operations on tensors of the GPU, without views.
        resident, pinned: the storages on the GPU, and those in pinned memory.
    """

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.operations = 0
        self.resident, self.pinned = Storages(), Storages()

    @contextmanager
    def modes(self) -> Iterator[None]:
        """The modes of one thread."""
        with _Calls(self), _Operations(self):
            yield

    def wait(self, what: str) -> None:
        self.waits.append(Wait(what, _line()))

    def reset(self) -> None:
        """Forget the waits and operations so far."""
        self.waits, self.operations = [], 0

    def listed(self) -> str:
        """Return the waits and how often each occurred, in lines of text."""
        counts = Counter(self.waits).most_common()
        return "\n".join(f"{count:5}  {what:<16} {line}" for (what, line), count in counts)

    def place(self, tensors: Iterable[Tensor]) -> torch.device:
        return GPU if any(tensor in self.resident for tensor in tensors) else CPU

    def copies(self, source: Tensor, target: Tensor | None, non_blocking: bool, what: str) -> None:
        """Count a copy between the places; the host waits unless its memory is pinned and it may go on."""
        from_gpu = source in self.resident
        own = target if from_gpu else source
        if not non_blocking or (own is not None and own not in self.pinned):
            self.wait(f"copy {'from' if from_gpu else 'to'} GPU ({what})")


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Pretend one GPU, in this thread and in those that are started meanwhile."""
    gpu = PretendedGpu()
    with cuda_of(gpu), gpu.modes():
        yield gpu


class _Calls(TorchFunctionMode):
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
            raise TypeError(f"can't convert cuda:0 device type tensor to numpy in {_line()}")
        if device is None and not pin and not (place == GPU and func in _WITHOUT_OPERATIONS):
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
        return moved


class _Operations(TorchDispatchMode):
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
        addresses = {_address(tensor): tensor in self.gpu.resident for tensor in given}
        if True not in addresses.values():
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        self._refuse(name, args, given)
        self._count(name, args, kwargs)
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        fresh = [tensor for tensor in made if _address(tensor) not in addresses]
        if name != "copy_" and any(addresses.get(_address(tensor)) is False for tensor in made):
            raise MixtureError(f"{name}: writes a result of the GPU to main memory in {_line()}")
        self.gpu.operations += bool(fresh) or func._schema.is_mutable
        self.gpu.resident.add(fresh)
        return result

    def _undecided(self, made: Tensor) -> Tensor:
        """Zeros that a backward pass creates lie where they are used: the engine takes them to be the CPU's."""
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
            raise MixtureError(f"{name}: {', '.join(shapes)}, in {_line()}")
        if name in _PRODUCTS and not all(t.is_floating_point() or t.is_complex() for t in given):
            raise MixtureError(f"{name}: CUDA has no products of integers, in {_line()}")

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


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _asked(
    place: torch.device, device: Any = None, non_blocking: bool = False, memory_format: Any = None
) -> tuple[Any, ...]:
    """Turn the arguments of ``cuda`` and ``cpu`` into those of ``to``; they change no memory format here."""
    return place, None, non_blocking


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", func))


def _line() -> str:
    """Return the line of the project that is being run, or that of a test if there is none."""
    frame, found = sys._getframe(1), "outside of the project"
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts and path not in _OWN_FILES:
            line = f"{path.relative_to(ROOT)}:{frame.f_lineno} {frame.f_code.co_name}"
            if not line.startswith("tests"):
                return line
            if found.startswith("outside"):
                found = line
        frame = frame.f_back
    return found


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
