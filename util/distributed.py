"""Several processes started by ``torchrun``; without it every function treats this process as the only one.

A process that has not loaded torch is the only one, so nothing here loads torch to find that out.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from fewseg.util.errors import UserError
from fewseg.util.peers import PeerWatch

if TYPE_CHECKING:
    import torch

_PEER_ENDED = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""Parts of gloo's messages about a process that has ended."""

_NEWS = 2.0
"""Seconds to wait for the news which process has ended, once a connection is broken off."""

_watches: list[PeerWatch] = []
"""The watch over the other processes, if this process has joined any."""


class ProcessLost(RuntimeError):
    """Another process has ended before its work was done."""


def start() -> torch.device:
    """Join the other processes, if ``torchrun`` started any, and return the device of this one."""
    import torch

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count()
    if _started_processes() > 1 and _group() is None:
        if 0 < gpus <= local_rank:
            raise UserError(
                f"torchrun: process {local_rank} has no GPU, {gpus} are visible; set --nproc-per-node {gpus}"
            )
        if gpus:
            torch.cuda.set_device(local_rank)
        # Tensors in main memory go from host to host, so that no process waits for its GPU.
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
        _watches.append(PeerWatch(rank(), world_size(), os.environ["MASTER_ADDR"], from_main))
    return torch.device("cuda", local_rank) if gpus else torch.device("cpu")


def stop(failed: bool = False) -> None:
    """Leave the group of processes.

    Args:
        failed: whether an error or a request ends this process, which then ends the others too.
    """
    while _watches:
        watch = _watches.pop()
        if not failed:
            watch.leave()
    if group := _group():
        group.destroy_process_group()


def check_others() -> None:
    """Raise ``ProcessLost`` if another process has ended before its work was done."""
    for watch in _watches:
        if (ended := watch.lost()) is not None:
            raise ProcessLost(f"process {ended} has ended")


def take_time() -> None:
    """Let this process, which saves what it has and waits for no other, end by itself."""
    for watch in _watches:
        watch.take_time()


def lost() -> str:
    """Return which process has ended, once the connection to it is broken off."""
    ended = [watch.lost(_NEWS) for watch in _watches]
    return f"process {ended[0]}" if ended and ended[0] is not None else "another process"


def is_connection_error(error: RuntimeError) -> bool:
    """Return whether the connection between the processes failed."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or is_broken_off(error)


def is_broken_off(error: RuntimeError) -> bool:
    """Return whether an error only says that another process has ended."""
    if isinstance(error, ProcessLost):
        return True
    return _started_processes() > 1 and any(words in str(error) for words in _PEER_ENDED)


def world_size() -> int:
    """Return the number of processes that work together."""
    group = _group()
    return group.get_world_size() if group else 1


def rank() -> int:
    """Return the number of this process, 0 .. ``world_size() - 1``."""
    group = _group()
    return group.get_rank() if group else 0


def is_main() -> bool:
    """Return whether this process is the one that writes files and reports."""
    return rank() == 0


def all_sum(counts: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``counts`` over all processes, on its own device; integers stay exact."""
    group = _group()
    if not group:
        return counts
    total = counts.clone()
    group.all_reduce(total)
    return total


def all_mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``values`` over all processes, on its own device."""
    return all_sum(values) / world_size()


def from_main(value: Any) -> Any:
    """Return the main process's ``value`` in every process; it must be picklable."""
    group, values = _group(), [value]
    if group:
        import torch

        group.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def gather(value: Any) -> list[Any]:
    """Return every process's ``value``, by rank; they must be picklable."""
    group, values = _group(), [value]
    if group:
        values *= world_size()
        group.all_gather_object(values, value)
    return values


def _group() -> Any:
    """Return ``torch.distributed`` where this process has joined others, else None."""
    torch = sys.modules.get("torch")
    return torch.distributed if torch and torch.distributed.is_initialized() else None


def _started_processes() -> int:
    """Return how many processes ``torchrun`` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))
