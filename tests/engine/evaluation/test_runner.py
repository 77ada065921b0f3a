"""Batches on a pretended GPU: the host waits once for each, and a stopped test goes on to the same counts."""

from __future__ import annotations

import pytest
import torch

from fewseg.engine.evaluation.encode_once import evaluate, evaluate_together
from fewseg.engine.evaluation.tally import Tally, Task
from fewseg.util.results import partial_counts
from fewseg.util.results.partial_counts import PartialCounts
from tests.engine.evaluation.batches import force_batches
from tests.engine.evaluation.test_encode_once import opened, require_equal_but_for_ties
from tests.pretend_gpu import pretended_gpu


def test_the_host_waits_once_per_batch_for_all_counts_together(configure, monkeypatch):
    model, episodes = opened(configure)
    expected = evaluate(model, episodes)
    force_batches(monkeypatch, 5)
    batches, count = [], Tally.count
    monkeypatch.setattr(
        Tally, "count", lambda tally, batch, *given: batches.append(batch) or count(tally, batch, *given)
    )
    with pretended_gpu() as gpu:
        model.to("cuda")
        gpu.reset()
        found = evaluate(model, episodes)
    assert sum(map(len, batches)) == 20 and 4 < len(batches) < 10
    assert len(gpu.waits) == len(batches), gpu.listed()
    assert all("to_host" in wait.line for wait in gpu.waits)
    for one, other in zip(found, expected, strict=True):
        require_equal_but_for_ties(one, other)


def test_a_test_that_was_stopped_between_batches_goes_on_to_the_same_counts(configure, monkeypatch, tmp_path):
    model, episodes = opened(configure)
    expected = evaluate(model, episodes)
    force_batches(monkeypatch, 5)
    monkeypatch.setattr(partial_counts, "SECONDS", 0.0)
    checks = []

    def stop() -> None:
        checks.append(None)
        if len(checks) == 4:
            raise InterruptedError("asked to stop")

    with pretended_gpu():
        model.to("cuda")
        first = Tally(episodes, kept=PartialCounts(tmp_path / "counts", "key"))
        with pytest.raises(InterruptedError):
            evaluate_together([Task(model, first)], check=stop)
        again = Tally(episodes, kept=PartialCounts(tmp_path / "counts", "key"))
        assert 0 < again.left < again.size
        evaluate_together([Task(model, again)])
    for one, other in zip(again.total(), expected, strict=True):
        require_equal_but_for_ties(one, other)
    assert torch.stack([score.done for score in again.total()]).all()
