"""Encodings are kept within the budget, those that are needed soonest first."""

from __future__ import annotations

import torch

from engine.cache import EncodingCache, size_of

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
    assert cache.holds("a")
    cache.get("a", encoding)
    assert not cache.holds("a")


def test_without_memory_everything_is_made_anew():
    assert run("aaaa", 0).made == 4


def test_size_counts_all_tensors():
    assert size_of({"a": torch.zeros(3), "b": torch.zeros(2, 2, dtype=torch.int64)}) == 12 + 32
