"""The choice of episodes for figures by their IoU: successes, failures, and typical cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fewseg.util.results.episode_counts import EpisodeCounts

BEST, WORST, TYPICAL = "best", "worst", "typical"


@dataclass(frozen=True)
class Case:
    """An episode that was chosen.

    Attributes:
        kind: ``best``, ``worst`` or ``typical``.
        seed: position of its manifest among all manifests.
        episode: position of the episode in that manifest.
        iou: IoU of its classes together.
        share: share of all episodes with a lower IoU, or an equal one and an earlier place.
    """

    kind: str
    seed: int
    episode: int
    iou: float
    share: float


def episode_ious(counts: EpisodeCounts) -> np.ndarray:
    """Return the IoU of every episode's novel classes together, float [S,E]."""
    novel = counts.rows >= counts.first_novel
    intersection, union = ((counts.counts[..., part] * novel).sum(2) for part in (0, 1))
    return intersection / np.maximum(union, 1)


def choose_cases(
    ious: np.ndarray, number: int, query_of: Callable[[int, int], str] | None = None
) -> list[Case]:
    """Return the episodes with the highest and the lowest IoU, and some that are spread over all of them.

    Args:
        ious: IoU of every episode, [S,E].
        number: number of episodes of each kind.
        query_of: name of the query of an episode, by seed and place. If it is given, the best episodes have
            different queries, and so have the worst; otherwise these often show one query with several
            supports.

    Returns:
        The best first, then the worst, beginning with the lowest IoU, then the typical ones: the middles of
        ``number`` equal parts of all episodes, by ascending IoU. Of equal IoUs, the earlier episode is lower.
    """
    order = np.argsort(ious, axis=None, kind="stable")
    chosen = {
        BEST: _first(order[::-1], number, ious.shape, query_of),
        WORST: _first(order, number, ious.shape, query_of),
        TYPICAL: _middles(order, number),
    }
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    cases = []
    for kind, flat in chosen.items():
        for index in flat:
            seed, episode = divmod(int(index), ious.shape[1])
            share = float(place[index] / len(order))
            cases.append(Case(kind, seed, episode, float(ious[seed, episode]), share))
    return cases


def _first(
    order: np.ndarray,
    number: int,
    shape: tuple[int, ...],
    query_of: Callable[[int, int], str] | None,
) -> list[int]:
    """Return the first episodes in this order whose queries differ."""
    if query_of is None:
        return [int(index) for index in order[:number]]
    chosen: dict[str, int] = {}
    for index in order:
        if len(chosen) == number:
            break
        chosen.setdefault(query_of(*divmod(int(index), shape[1])), int(index))
    return [*chosen.values()]


def _middles(order: np.ndarray, number: int) -> Sequence[int]:
    places = ((np.arange(number) + 0.5) / number * len(order)).astype(int)
    return [int(index) for index in order[np.unique(places)]]
