"""Conditions under which recorded figures are compared."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run on one thread, as the records were made: sums are split among threads, and round accordingly."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def _forget_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Free what the tests of a module computed once, since the models of all methods take several GiB."""
    yield
    for value in vars(request.module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
