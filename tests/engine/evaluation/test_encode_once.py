"""Encoding once gives the counts of the plain loop, digit by digit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one, predict
from fewseg.engine.evaluation.tally import Tally, Task
from fewseg.engine.evaluation.visits import plan_visits
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import test_episodes, test_fold_of
from fewseg.model.folding import fold_for_testing
from fewseg.model.multi_scale import MultiScale
from tests.engine.evaluation.batches import force_batches


def opened(configure, arch="bam", **changes):
    """Return the arguments of an evaluation, with a network that is not sure of anything."""
    config = configure(arch, **changes)
    fold = test_fold_of(config)
    model = build_network(config, fold.classes)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    with torch.no_grad():
        for _ in range(3):
            model.backbone(torch.randn(2, 3, 65, 65), ("layer4",))
    episodes = test_episodes(config, fold)
    make_undecided(model, first(episodes))
    return model, episodes


def first(episodes):
    """Return the first episode."""
    return episodes.load(next(iter(episodes)))[0]


@torch.no_grad()
def make_undecided(model, episode):
    """Shift the classifier so that half the pixels of an episode are foreground."""
    logits = model.eval()(episode).parts["meta"].movedim(-3, 0)
    classifier = next(m for m in model.meta.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 2)
    classifier.bias[1] -= (logits[1] - logits[0]).median()


def counts(scores):
    return [{part: counted.tolist() for part, counted in score.episodes.items()} for score in scores]


@pytest.mark.parametrize(
    "changes",
    [{}, {"shot": 3}, {"ways": 2, "shot": 2}, {"ori_resize": False}, {"protocol": "hsnet"}],
    ids=str,
)
def test_counts_equal_the_plain_loop(configure, changes):
    arguments = opened(configure, **changes)
    once, plain = counts(evaluate(*arguments)), counts(evaluate_one_by_one(*arguments))
    assert once == plain
    assert once[0] != once[1]
    assert sum(hits for _, *classes in once[0]["final"] for hits, *_ in classes) > 0


def test_counts_of_a_folded_model_equal_the_plain_loop(configure):
    model, episodes = opened(configure)
    fold_for_testing(model)
    assert counts(evaluate(model, episodes)) == counts(evaluate_one_by_one(model, episodes))


def test_queries_at_several_scales_are_still_encoded_once(configure, monkeypatch):
    model, episodes = opened(configure)
    scaled = MultiScale(model, [0.7, 1, 1.3])
    several, one = counts(evaluate(scaled, episodes)), counts(evaluate(model, episodes))
    assert several == counts(evaluate_one_by_one(scaled, episodes)) != one
    calls, scaled_calls = count_calls(model, monkeypatch), count_calls(scaled, monkeypatch)
    evaluate(model, episodes)
    evaluate(scaled, episodes)
    assert scaled_calls == calls


def count_calls(model, monkeypatch):
    """Count the images that a model encodes, and the episodes that it decodes."""
    calls = Counter()

    def counting(name):
        original = getattr(model, name)

        def counted(first, *arguments):
            calls[name] += len(first if isinstance(first, torch.Tensor) else next(iter(first.values())))
            return original(first, *arguments)

        return counted

    for name in ("encode_query", "encode_support", "encode_auxiliary", "decode"):
        monkeypatch.setattr(model, name, counting(name))
    return calls


def test_counts_do_not_depend_on_the_memory(configure, monkeypatch):
    model, episodes = opened(configure, shot=2)
    calls = count_calls(model, monkeypatch)
    enough = counts(evaluate(model, episodes))
    encoded = calls.pop("encode_support")
    assert counts(evaluate(model, episodes, cache_gib=1e-9)) == enough
    assert encoded < calls["encode_support"] == 2 * 2 * 10


def test_every_query_and_support_is_encoded_once(configure, monkeypatch):
    model, episodes = opened(configure)
    visits = plan_visits([Task(model, Tally(episodes))])
    calls = count_calls(model, monkeypatch)
    evaluate(model, episodes)
    assert calls["encode_query"] == len(visits) == len({visit.query for visit in visits})
    assert calls["encode_support"] == len({support for visit in visits for support in visit.images()})
    assert calls["decode"] == 20


def test_a_query_is_compared_once_with_every_support(configure, monkeypatch):
    model, episodes = opened(configure, shot=2)
    pairs = [
        (planned.spec.query, key)
        for visit in plan_visits([Task(model, Tally(episodes))])
        for planned in visit.episodes
        for key in planned.supports
    ]
    calls, compare = [], model.meta.comparisons
    monkeypatch.setattr(model.meta, "comparisons", lambda *both: calls.append(both) or compare(*both))
    evaluate(model, episodes)
    assert len(calls) == len(set(pairs)) < len(pairs) == 40


@pytest.mark.parametrize("changes", [{"shot": 2}, {"ways": 2}], ids=str)
def test_batches_of_several_queries_give_the_same_counts(configure, monkeypatch, changes):
    """Larger batches round differently, which moves pixels whose logits are equal but for that."""
    arguments = opened(configure, **changes)
    single = evaluate(*arguments)
    force_batches(monkeypatch, 6)
    calls = count_calls(arguments[0], monkeypatch)
    batches = []
    decode = arguments[0].decode
    monkeypatch.setattr(arguments[0], "decode", lambda *given: batches.append(given) or decode(*given))
    for one, other in zip(evaluate(*arguments), single, strict=True):
        require_equal_but_for_ties(one, other)
    sizes = [len(next(iter(supports.values()))) for _, supports, _ in batches]
    assert sizes[0] == 1 and 4 <= max(sizes) <= 6 and sum(sizes) == 20
    visits = plan_visits([Task(arguments[0], Tally(arguments[1]))])
    assert calls["encode_query"] == len(visits)
    assert calls["encode_support"] == len({support for visit in visits for support in visit.images()})


def require_equal_but_for_ties(one, other, pixels=8):
    """Compare the counts of two evaluations, of which a few pixels per episode may differ."""
    assert one.done.all() and other.done.all()
    for part, counted in one.episodes.items():
        assert (counted - other.episodes[part]).abs().max() <= pixels
        assert torch.equal(counted[..., 2], other.episodes[part][..., 2])  # areas of the labels


def test_every_episode_is_observed(configure):
    arguments = opened(configure)
    seen = {}
    evaluate(*arguments, observe=lambda planned, prediction: seen.update({planned[:2]: prediction}))
    assert sorted(seen) == [(seed, number) for seed in range(2) for number in range(10)]
    assert seen[0, 0].logits.shape == (1, 2, 65, 65)


def test_random_draws_depend_on_the_episode_alone(configure):
    config = configure("rpmm", **{"Method.options.em_init": "per_forward"})
    fold = test_fold_of(config)
    model, episodes = build_network(config, fold.classes), test_episodes(config, fold)
    found = []
    for loop in (evaluate, evaluate_one_by_one):
        torch.rand(len(found) + 1)  # draws of others
        logits = {}
        loop(
            model,
            episodes,
            observe=lambda planned, made, into=logits: into.update({planned[:2]: made.logits}),
        )
        found.append(logits)
    assert len(found[0]) == 20 and all(torch.equal(found[1][key], found[0][key]) for key in found[0])


def test_batch_dependent_learners_go_one_by_one(configure, monkeypatch):
    arguments = opened(configure)
    expected = counts(evaluate_one_by_one(*arguments))
    meta = arguments[0].meta
    monkeypatch.setattr(meta, "inputs", replace(meta.inputs, batch_dependent=True))
    calls = count_calls(arguments[0], monkeypatch)
    assert counts(evaluate(*arguments)) == expected
    assert calls["encode_query"] == calls["decode"] == 20


def test_batch_dependent_learners_are_tested_in_the_precision_asked_for(configure, monkeypatch):
    arguments = opened(configure)
    monkeypatch.setattr(arguments[0].meta, "batch_dependent", True, raising=False)
    seen = set()

    def observe(planned, prediction):
        seen.add(prediction.parts["meta"].dtype)

    evaluate(*arguments, precision=torch.autocast("cpu", torch.bfloat16), observe=observe)
    assert seen == {torch.bfloat16}


@torch.no_grad()
def test_plain_loop_predicts_what_the_model_does(configure):
    model, episodes = opened(configure, shot=3, ways=2)
    episode = first(episodes)
    torch.testing.assert_close(predict(model, episode).logits, model(episode).logits, atol=1e-4, rtol=1e-4)


def test_metrics_are_named_and_bounded(configure):
    score = evaluate(*opened(configure))[0]
    metrics = score.metrics()
    assert list(metrics) == [
        *("mIoU", "FB-IoU", "pIoU", "mIoU_meta", "FB-IoU_meta", "pIoU_meta", "mIoU_base"),
    ]
    assert all(0 <= value <= 1 for value in metrics.values())
    assert sum(score.class_iou().values()) / 5 == pytest.approx(metrics["mIoU"])
