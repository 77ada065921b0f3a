"""What the benchmarks share: timing several actions alternately, and an episode to time them on.

A GPU works while the host goes on, so the time of an action ends when the device has finished it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch.nn.functional import interpolate

from fewseg.model.contract import Episode

K = TypeVar("K")

CPU = torch.device("cpu")


def await_device(device: torch.device) -> None:
    """Wait until a GPU has finished all that it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def by_turns(
    actions: Mapping[K, Callable[[], Any]],
    rounds: int,
    *,
    warm_up: bool = True,
    device: torch.device = CPU,
    clock: Callable[[], float] = time.perf_counter,
    summary: Callable[[Iterable[float]], float] = statistics.median,
) -> tuple[dict[K, float], dict[K, Any]]:
    """Run all actions alternately, so that other load on the machine affects them equally.

    Args:
        actions: name -> action.
        rounds: number of measured runs of each action.
        warm_up: whether one more round, which is not measured, comes first.
        device: where the actions compute; the clock is read when it has finished.
        clock: ``time.process_time`` counts the time of this process only.
        summary: summarises the seconds of all rounds.

    Returns:
        The seconds of each action, and what its last run returned.
    """
    seconds: dict[K, list[float]] = {name: [] for name in actions}
    results: dict[K, Any] = {}
    for number in range(rounds + warm_up):
        for name, action in actions.items():
            await_device(device)
            started = clock()
            results[name] = action()
            await_device(device)
            if number >= warm_up:
                seconds[name].append(clock() - started)
    return {name: summary(values) for name, values in seconds.items()}, results


def draw_episode(side: int, shot: int, batch: int = 1, share: float = 0.16) -> Episode:
    """Draw a random episode of smooth images, whose square object covers ``share`` of its image."""
    coarse = torch.randn(batch * (1 + shot), 3, 15, 15, generator=torch.Generator().manual_seed(0))
    images = interpolate(coarse, (side, side), mode="bicubic").view(batch, 1 + shot, 3, side, side)
    edge = int(side * share**0.5)
    mask = torch.zeros(batch, 1, shot, side, side, dtype=torch.int64)
    mask[..., side // 4 : side // 4 + edge, side // 3 : side // 3 + edge] = 1
    return Episode(
        query=images[:, 0],
        support=images[:, None, 1:],
        support_mask=mask,
        class_id=torch.ones(batch, 1, dtype=torch.int64),
        class_index=torch.zeros(batch, 1, dtype=torch.int64),
        query_mask=mask[:, 0, 0],
        base_label=mask[:, 0, 0],
    )
