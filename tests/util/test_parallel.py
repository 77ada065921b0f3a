"""Working on many files in several processes."""

import math
import os

import pytest

from fewseg.util import parallel
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(parallel, "PARALLEL_FROM", 2)
    monkeypatch.setattr(parallel, "CHUNK", 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_and_errors_pass_through(workers):
    roots = list(parallel_map(math.sqrt, range(20), title="roots", workers=workers))
    assert roots == [math.sqrt(n) for n in range(20)]
    with pytest.raises(ValueError, match="domain"):
        list(parallel_map(math.sqrt, [1, 4, -1, 9], title="roots", workers=workers))


def test_a_killed_process_is_one_line():
    with pytest.raises(DataError, match="leaving: a process was killed"):
        list(parallel_map(os._exit, [1, 1], title="leaving", workers=2))
