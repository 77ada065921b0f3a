"""Reading ahead keeps the order, passes errors on, and hears a request to stop while it waits."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from fewseg.engine.evaluation import prefetch as module
from fewseg.engine.evaluation.prefetch import prefetch


def test_results_come_in_order():
    assert list(prefetch(partial(int, i) for i in range(20))) == list(range(20))


def test_an_error_comes_where_it_happened():
    results = prefetch([partial(int, 1), partial(int, "x"), partial(int, 3)], ahead=2)
    assert next(results) == 1
    with pytest.raises(ValueError, match="'x'"):
        next(results)


def test_a_check_may_stop_it_while_it_waits(monkeypatch):
    monkeypatch.setattr(module, "_LOOK", 0.05)
    released = threading.Event()

    def stop() -> None:
        raise InterruptedError("asked to stop")

    results = prefetch([partial(released.wait, 20)], check=stop)
    with pytest.raises(InterruptedError):
        next(results)
    assert not released.is_set()
    released.set()
