"""Parts of EFTNet switched off or replaced: the choice of the round, learning, what is learnt from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fewseg.model import create_adapter
from fewseg.model.adapt.episode import AdaptedEpisode
from fewseg.model.layer.loss import total
from tests.model.test_eftnet import METHODS, build, one

ROUNDS = 3


def adapted(model, shot: int = 1, **options: object):
    return create_adapter("eftnet", model, rounds=ROUNDS, **{"lr": 0.01, **options})(one(shot)).parts


@pytest.mark.parametrize(("choice", "number"), [("last", ROUNDS), (2, 2), (0, 0)])
def test_a_round_that_is_named_is_returned_without_scores(
    choice: object, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    scored = adapted(model)
    monkeypatch.setattr(AdaptedEpisode, "_score", None)  # not even computed
    prediction = create_adapter("eftnet", model, rounds=ROUNDS, lr=0.01, choice=choice)(one())
    assert prediction.parts["round"].tolist() == [number]
    assert prediction.parts["scores"].isnan().all()
    assert torch.equal(prediction.parts["round_logits"], scored["round_logits"])
    assert torch.equal(prediction.logits, scored["round_logits"][:, number])


def test_every_round_is_shown_and_the_returned_one_is_among_them() -> None:
    model = build()
    prediction = create_adapter("eftnet", model, rounds=ROUNDS, lr=0.01)(one())
    rounds, number = prediction.parts["round_logits"], prediction.parts["round"].item()
    assert rounds.shape == (1, ROUNDS + 1, *prediction.logits.shape[1:])
    torch.testing.assert_close(rounds[:, 0], model(one()).logits)
    assert torch.equal(rounds[:, number], prediction.logits)
    assert number == ROUNDS - prediction.parts["scores"][0].flip(0).argmax()  # of equal ones the later


def test_the_last_round_before_a_diverged_one_is_returned() -> None:
    parts = adapted(build(), lr=1e9, choice="last")
    assert parts["round"].tolist() == [1] and not parts["round_logits"][0, 2:].isfinite().all()


def test_a_round_beyond_the_last_is_refused() -> None:
    with pytest.raises(ValueError, match="'choice' must be at most the number of rounds, 3, got 4"):
        adapted(build(), choice=4)
    with pytest.raises(ValueError, match="option 'choice' of eftnet must be 'score' or 'last' or"):
        adapted(build(), choice="best")


def test_without_learning_the_rounds_only_blend() -> None:
    model = build()
    before = {name: value.clone() for name, value in model.named_parameters()}
    adapter = create_adapter("eftnet", model, rounds=ROUNDS, lr=0)
    with adapter.adaptation(one()) as episode:
        outcome = episode.round(episode.unadapted())
        episode.step(outcome, adapter.options.rate(1))
        assert not total(outcome.losses).requires_grad
        assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    blended = adapted(model, lr=0)["round_logits"]
    assert not torch.equal(blended[:, 1], blended[:, 0])
    assert torch.equal(blended[:, 1], adapted(model)["round_logits"][:, 1])
    assert not torch.equal(blended[:, 2], adapted(model)["round_logits"][:, 2])
    all_on_supports = adapted(model, lr=0, weighting=[1.0, 0.0])["round_logits"]
    torch.testing.assert_close(
        all_on_supports[:, 1:], all_on_supports[:, :1].expand_as(all_on_supports[:, 1:])
    )


@pytest.mark.parametrize("shot", [1, 3])
@pytest.mark.parametrize("method", [method for method in METHODS if method != "mlc"])
def test_rival_learns_from_the_supports_and_never_from_the_query(method: str, shot: int) -> None:
    model = build(method, shot)
    adapter = create_adapter("eftnet", model, rounds=2, lr=0.01, learn_from="supports", choice="last")
    logits = adapter(one(shot)).parts["round_logits"]
    torch.testing.assert_close(logits[:, 1], logits[:, 0])  # the first step is after round 1
    tuned = method != "panet"
    assert torch.equal(logits[:, 2], logits[:, 1]) != tuned
    with adapter.adaptation(one(shot)) as episode:
        losses = episode.round(episode.unadapted()).losses
    other = replace(one(shot), query=one(shot, seed=1).query)
    with adapter.adaptation(other) as episode:
        others = episode.round(episode.unadapted()).losses
    assert all(torch.equal(losses[name], others[name]) for name in losses)


def test_rival_fits_the_supports_masks_and_leaves_void_out() -> None:
    adapter = create_adapter("eftnet", build(shot=2), lr=0.01, learn_from="supports")
    with adapter.adaptation(one(2)) as episode:
        start, values = episode.unadapted(), []
        for _ in range(6):
            outcome = episode.round(start)
            values.append(total(outcome.losses).item())
            episode.step(outcome, 0.01)
    assert values[-1] < values[0]
    assert 0 <= outcome.score <= 1 and len(outcome.reverse) == 2


def test_rival_does_not_learn_from_unlabelled_and_void_pixels() -> None:
    adapter = create_adapter("eftnet", build(), learn_from="supports")
    losses = []
    for value in (0, 254, 255):
        masks = one().support_mask.clone()
        masks[..., :10, :] = value
        with adapter.adaptation(replace(one(), support_mask=masks)) as episode:
            losses.append(total(episode.round(episode.unadapted()).losses).item())
    assert losses[1] == losses[2] != losses[0]


def test_a_left_out_support_is_segmented_with_the_others_only() -> None:
    adapter = create_adapter("eftnet", build(shot=2), learn_from="supports", choice="last")
    used = []
    with adapter.adaptation(one(2)) as episode:
        predict = episode._predict
        episode._predict = lambda image, supports, further: (
            used.append((image, [support.index for support in supports], further))
            or predict(image, supports, further)
        )
        episode.round(episode.unadapted())
    assert used[1:] == [(0, [0, 1], None), (1, [1, 1], None), (2, [0, 0], None)]
