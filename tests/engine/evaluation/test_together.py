"""Tests of one checkpoint with several numbers of shots share encodings, and count what separate tests do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fewseg.engine.evaluation.encode_once import encode_equally, evaluate, evaluate_together
from fewseg.engine.evaluation.tally import Tally, Task
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import test_episodes
from tests.engine.evaluation.batches import force_batches
from tests.engine.evaluation.test_encode_once import count_calls, counts, opened, require_equal_but_for_ties

METHODS = {"bam": {"Method.options.shot_weights": "uniform"}, "msanet": {}}


def opened_for(configure, shots, arch, **changes):
    """Return one model per number of shots, all with the same weights, and the episodes of each."""
    model, episodes = opened(configure, arch, shot=shots[0], **changes)
    found = [(model, episodes)]
    for shot in shots[1:]:
        config = configure(arch, shot=shot, **changes)
        other = build_network(config, episodes.fold.classes)
        other.load_state_dict(model.state_dict(), strict=False)
        found.append((other, test_episodes(config, episodes.fold)))
    return found


def tasks_of(pairs):
    return [Task(model, Tally(episodes)) for model, episodes in pairs]


@pytest.mark.parametrize(("arch", "batch"), [("bam", 4), ("msanet", 1)])
def test_counts_equal_separate_tests_and_every_image_is_encoded_once(configure, monkeypatch, arch, batch):
    force_batches(monkeypatch, batch)
    pairs = opened_for(configure, (1, 3), arch, **METHODS[arch])
    separate = [evaluate(*pair) for pair in pairs]
    assert counts(separate[0]) != counts(separate[1])
    tasks = tasks_of(pairs)
    assert encode_equally(tasks)
    calls = [count_calls(model, monkeypatch) for model, _ in pairs]
    evaluate_together(tasks)
    for task, alone in zip(tasks, separate, strict=True):
        for one, other in zip(task.tally.total(), alone, strict=True):
            require_equal_but_for_ties(one, other, pixels=0 if batch == 1 else 8)
    planned = [planned for _, episodes in pairs for planned in episodes]
    assert calls[0]["encode_query"] == len({one.spec.query for one in planned})
    assert calls[0]["encode_support"] == len({support for one in planned for support in one.supports})
    assert calls[1].keys() == {"decode"}


class TestNotShared:
    def test_where_encodings_have_other_entries(self, configure, monkeypatch):
        pairs = opened_for(configure, (1, 3), "bam")
        encode, meta = pairs[1][0].meta.encode_support, pairs[1][0].meta
        monkeypatch.setattr(meta, "encode_support", lambda *given: {**encode(*given), "more": given[1]})
        assert not encode_equally(tasks_of(pairs))

    def test_where_weights_differ(self, configure):
        pairs = opened_for(configure, (1, 3), "bam")
        with torch.no_grad():
            next(pairs[1][0].meta.parameters()).add_(1e-3)
        assert not encode_equally(tasks_of(pairs))

    def test_where_encodings_depend_on_the_batch(self, configure, monkeypatch):
        pairs = opened_for(configure, (1, 3), "bam")
        meta = pairs[1][0].meta
        monkeypatch.setattr(meta, "inputs", replace(meta.inputs, batch_dependent=True))
        assert not encode_equally(tasks_of(pairs))
