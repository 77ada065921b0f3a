"""Encodings are kept within the budget, those that are needed soonest first."""

from __future__ import annotations

import random
from functools import cache as remembered

import pytest
import torch

from fewseg.engine.evaluation.cache import GIB, EncodingCache, size_of

BYTES = 40


def encoding(value: float = 0.0) -> dict[str, torch.Tensor]:
    return {"feature": torch.full((10,), value)}


def run(uses: str, budget: float) -> EncodingCache:
    cache = EncodingCache(uses, budget)
    for key in uses:
        found = cache.get(key, lambda key=key: encoding(float(ord(key))))
        assert float(found["feature"][0]) == ord(key)
        assert cache.held <= budget
    return cache


def test_each_is_made_once_where_memory_suffices():
    assert run("abcabcabc", 3 * BYTES).made == 3


def test_the_farthest_next_use_goes_first():
    # With room for two, dropping the least recently used one would compute all nine.
    assert run("abcabcabc", 2 * BYTES).made == 5


def test_nothing_is_kept_after_its_last_use():
    assert run("abcab", 10 * BYTES).held == 0
    cache = EncodingCache("aab", 10 * BYTES)
    cache.get("a", encoding)
    assert cache.held > 0
    cache.get("a", encoding)
    assert cache.held == 0


def test_without_memory_everything_is_made_anew():
    assert run("aaaa", 0).made == 4


def test_size_counts_all_tensors():
    assert size_of({"a": torch.zeros(3), "b": torch.zeros(2, 2, dtype=torch.int64)}) == 12 + 32


def fewest(uses: str, room: int) -> int:
    """The least number of encodings that any choice of what to keep has to make."""

    @remembered
    def made(position: int, kept: frozenset[str]) -> int:
        if position == len(uses):
            return 0
        key = uses[position]
        choices = (
            [kept | {key}] if len(kept | {key}) <= room else [(kept | {key}) - {out} for out in kept | {key}]
        )
        return (key not in kept) + min(made(position + 1, frozenset(choice)) for choice in choices)

    return made(0, frozenset())


@pytest.mark.parametrize("seed", range(20))
def test_no_choice_of_what_to_keep_makes_fewer(seed: int) -> None:
    rng = random.Random(seed)
    uses = "".join(rng.choice("abcde") for _ in range(16))
    for room in (1, 2, 3):
        cache = run(uses, room * BYTES + rng.randrange(BYTES))
        assert cache.made == fewest(uses, room) and cache.held == 0


def test_a_gib_is_a_power_of_two():
    assert GIB == 1024**3
