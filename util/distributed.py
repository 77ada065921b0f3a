"""Several processes started by ``torchrun``. Without it every function here does nothing, or the obvious."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, distributed

from fewseg.util.errors import UserError

_BROKEN_OFF = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What gloo says of a process that is gone."""


def start() -> torch.device:
    """Join the other processes, if ``torchrun`` started any, and return the device of this one."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count()
    if _started_processes() > 1 and not distributed.is_initialized():
        if 0 < gpus <= local_rank:
            raise UserError(
                f"torchrun: process {local_rank} has no GPU, {gpus} are visible; set --nproc-per-node {gpus}"
            )
        if gpus:
            torch.cuda.set_device(local_rank)
        distributed.init_process_group("nccl" if gpus else "gloo")
    return torch.device("cuda", local_rank) if gpus else torch.device("cpu")


def stop() -> None:
    """Leave the group of processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def is_connection_error(error: RuntimeError) -> bool:
    """Return whether the connection between the processes failed."""
    return isinstance(error, distributed.DistError) or is_broken_off(error)


def is_broken_off(error: RuntimeError) -> bool:
    """Return whether an error only says that another process has ended."""
    return _started_processes() > 1 and any(words in str(error) for words in _BROKEN_OFF)


def _started_processes() -> int:
    """Return how many processes ``torchrun`` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def world_size() -> int:
    """Return the number of processes that work together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, 0 .. ``world_size() - 1``."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Return whether this process is the one that writes files and reports."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes are here."""
    if distributed.is_initialized():
        distributed.barrier()


def all_sum(counts: Tensor) -> Tensor:
    """Return the sum of ``counts`` over all processes, on its own device; integers stay exact."""
    if not distributed.is_initialized():
        return counts
    total = counts.to(_communication_device(), copy=True)
    distributed.all_reduce(total)
    return total.to(counts.device)


def from_main(value: Any) -> Any:
    """Return the main process's ``value`` in every process; it must be picklable."""
    if not distributed.is_initialized():
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=_communication_device())
    return box[0]


def gather(value: Any) -> list[Any]:
    """Return every process's ``value``, by rank; they must be picklable."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def _communication_device() -> torch.device:
    on_gpu = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
