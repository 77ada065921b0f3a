"""What ``torch.cuda`` and its relatives answer while a GPU is pretended (``tests/pretend_gpu.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tests.pretended.memory import PretendedGpu

MEMORY = 16 * 2**30
"""Bytes of the pretended GPU; a quarter is taken."""


_torchs_grouping = torch.optim.Optimizer._group_tensors_by_device_and_dtype


class Generator(torch.Generator):
    """A generator that may belong to the GPU; it draws what one of the CPU draws."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls)
        made.place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.place


class Stream:
    """A stream, or an event; for either the host can wait."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self.gpu = gpu

    def synchronize(self) -> None:
        self.gpu.wait("synchronize")

    def is_capturing(self) -> bool:
        return False

    def query(self) -> bool:
        return True

    def record_event(self, event: Any = None) -> Any:
        return event or Stream(self.gpu)

    def _nothing(self, *_: Any) -> None:
        """Do what costs the host no time."""

    record = wait = wait_stream = wait_event = _nothing

    def elapsed_time(self, other: Any) -> float:
        return 1.0


@contextmanager
def cuda_of(gpu: PretendedGpu) -> Iterator[None]:
    """Let torch report one GPU: ``torch.cuda``, generators, pinned memory and autocast."""
    with ExitStack() as stack:
        for owner, answers in _answers(gpu):
            for name, answer in answers.items():
                stack.enter_context(patch.object(owner, name, answer, create=owner is Tensor))
        yield


def _answers(gpu: PretendedGpu) -> Iterator[tuple[Any, dict[str, Any]]]:
    properties = SimpleNamespace(
        name="pretended GPU", total_memory=MEMORY, major=8, minor=0, multi_processor_count=100
    )
    generator = Generator("cuda:0")
    yield (
        torch.cuda,
        {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "device": lambda device: nullcontext(),
            "get_device_properties": lambda device=None: properties,
            "get_device_name": lambda device=None: properties.name,
            "get_device_capability": lambda device=None: (8, 0),
            "is_bf16_supported": lambda *_, **__: True,
            "mem_get_info": lambda device=None: (MEMORY * 3 // 4, MEMORY),
            **dict.fromkeys(("memory_allocated", "max_memory_allocated"), lambda device=None: MEMORY // 4),
            **dict.fromkeys(("memory_reserved", "max_memory_reserved"), lambda device=None: MEMORY // 4),
            "reset_peak_memory_stats": lambda device=None: None,
            "empty_cache": lambda: None,
            "is_current_stream_capturing": lambda: False,
            "manual_seed": generator.manual_seed,
            "manual_seed_all": generator.manual_seed,
            "default_generators": (generator,),
            "synchronize": lambda device=None: gpu.wait("synchronize"),
            **dict.fromkeys(("Stream", "Event", "current_stream"), lambda *_, **__: Stream(gpu)),
            "stream": lambda stream: nullcontext(),
        },
    )
    yield (
        torch.accelerator,
        {
            "is_available": lambda: True,
            "current_accelerator": lambda *_, **__: torch.device("cuda"),
            "device_count": lambda: 1,
            "current_device_index": lambda: 0,
            "set_device_index": lambda device: None,
            "current_stream": lambda device=None: Stream(gpu),
            "synchronize": lambda device=None: gpu.wait("synchronize"),
        },
    )
    yield torch, {"Generator": Generator}
    yield torch.autocast, {"__init__": _autocast(torch.autocast.__init__)}
    yield torch.optim.Optimizer, {"_group_tensors_by_device_and_dtype": _grouped}
    yield Tensor, {"pin_memory": _pinned(gpu), "is_pinned": lambda tensor, *_: tensor in gpu.pinned}


def _autocast(published: Any) -> Any:
    """The tensors are the CPU's, so the CPU's autocast has to stand in for that of the GPU."""

    def start(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        published(self, "cpu", *args, **kwargs)

    return start


def _grouped(
    lists: list[list[Tensor | None]], with_indices: bool = False
) -> dict[tuple[torch.device, torch.dtype], Any]:
    """Group as torch does, but by the places pretended: below Python all tensors lie in main memory."""
    groups = _torchs_grouping(lists, with_indices)
    return {(group[0][0][0].device, dtype): group for (_, dtype), group in groups.items()}


def _pinned(gpu: PretendedGpu) -> Any:
    def pin_memory(tensor: Tensor, device: Any = None) -> Tensor:
        if tensor in gpu.resident:
            raise RuntimeError("only tensors in main memory can be pinned")
        if tensor in gpu.pinned:
            return tensor
        copy = tensor.clone()
        gpu.pinned.add([copy])
        return copy

    return pin_memory
