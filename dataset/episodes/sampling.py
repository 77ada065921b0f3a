"""The published sampler: it draws the class that is segmented in a query, and the supports."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from fewseg.dataset.lists.image_lists import EpisodeLists
from fewseg.util.errors import DataError


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode by the names of its images.

    Attributes:
        query: name of the query image.
        class_ids: dataset id of each way's class.
        supports: for each way, the names of its K supports in the order they were drawn.
    """

    query: str
    class_ids: tuple[int, ...]
    supports: tuple[tuple[str, ...], ...]


def generator(*key: int | str) -> random.Random:
    """Return a random generator that depends on ``key`` alone, the same on every machine."""
    text = "/".join(str(part) for part in key)
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def draw_class(candidates: Sequence[int], rng: random.Random) -> int:
    """Draw one class uniformly, by the same random call as the published sampler."""
    return candidates[rng.randint(1, len(candidates)) - 1]


def draw_supports(
    pool: Sequence[int], query: int, shot: int, rng: random.Random, repeat: bool = False
) -> list[int]:
    """Draw ``shot`` positions from ``pool`` without ``query``, by rejection sampling.

    As in the published sampler, the first number drawn for every support is not used.

    Args:
        repeat: whether the same position may be drawn twice.

    Raises:
        DataError: the pool is too small; the published sampler would never end.
    """
    if len(pool) <= shot and len(pool) - (query in pool) < shot:
        raise DataError(
            f"{shot} supports are wanted, but their class has {len(pool)} images, the query included"
        )
    drawn: list[int] = []
    for _ in range(shot):
        rng.randint(1, len(pool))
        support = pool[rng.randint(1, len(pool)) - 1]
        while support == query or (support in drawn and not repeat):
            support = pool[rng.randint(1, len(pool)) - 1]
        drawn.append(support)
    return drawn


def draw_for_query(
    lists: EpisodeLists, index: int, shot: int, rng: random.Random, ways: int = 1, repeat: bool = False
) -> EpisodeSpec:
    """Draw an episode for ``lists.queries[index]``; its first way is one of the query's candidates."""
    class_id = draw_class(lists.candidates[index], rng)
    return complete(lists, lists.queries[index], class_id, shot, rng, ways, repeat)


def complete(
    lists: EpisodeLists,
    query: int,
    class_id: int,
    shot: int,
    rng: random.Random,
    ways: int = 1,
    repeat: bool = False,
) -> EpisodeSpec:
    """Draw the further ways among the other classes of the fold, then the supports of every way."""
    others = [c for c in lists.classes if c != class_id]
    if ways > len(others) + 1:
        raise DataError(f"ways {ways}: the fold has {len(others) + 1} classes with images")
    class_ids = (class_id, *rng.sample(others, ways - 1)) if ways > 1 else (class_id,)
    names = lists.source.names
    supports = tuple(
        tuple(names[position] for position in draw_supports(lists.supports[c], query, shot, rng, repeat))
        for c in class_ids
    )
    return EpisodeSpec(names[query], class_ids, supports)
