"""What lies on a pretended GPU, and what the host has asked of it."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

ROOT = Path(__file__).resolve().parents[2]
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
_OWN_FOLDER = Path(__file__).resolve().parent


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
        return address(tensor) in self._held

    def clear(self) -> None:
        self._held = {}

    def add(self, tensors: Iterable[Tensor]) -> None:
        with self._lock:
            for tensor in tensors:
                self._held[address(tensor)] = StorageWeakRef(tensor.untyped_storage())
            if len(self._held) > self._most:
                self._held = {key: ref for key, ref in self._held.items() if not ref.expired()}
                self._most = max(1000, 2 * len(self._held))


class PretendedGpu:
    """What lies on the GPU, and what has been asked of it.

    Attributes:
        waits: everything for which the host waited.
        operations: number of operations on tensors of the GPU, without views.
        resident, pinned: the storages on the GPU, and those in pinned memory.
        coming: those in main memory that the GPU still writes, as the host has not waited since.
    """

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.operations = 0
        self.resident, self.pinned, self.coming = Storages(), Storages(), Storages()

    def wait(self, what: str) -> None:
        self.coming.clear()
        self.waits.append(Wait(what, project_line()))

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
        elif from_gpu and own is not None:
            self.coming.add([own])

    def read(self, tensors: Iterable[Tensor]) -> None:
        """Raise MixtureError if the GPU still writes one of them."""
        if any(tensor in self.coming for tensor in tensors):
            raise MixtureError(f"what the GPU still writes is read in {project_line()}")


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def project_line() -> str:
    """Return the line of the project that is being run, or that of a test if there is none."""
    frame, found = sys._getframe(1), "outside of the project"
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts and path.parent != _OWN_FOLDER:
            line = f"{path.relative_to(ROOT)}:{frame.f_lineno} {frame.f_code.co_name}"
            if not line.startswith("tests"):
                return line
            if found.startswith("outside"):
                found = line
        frame = frame.f_back
    return found
