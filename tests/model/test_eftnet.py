"""Test-time adaptation around any method that allows it."""

import gc
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewseg.model import create_adapter, create_model
from fewseg.model.contract import Episode, Inputs, SupportView
from fewseg.model.fewshot import FewShotModel
from tests.model.tester import random_episode

SIDE = 65
METHODS = {
    "bam": {"channels": 16},
    "msanet": {"channels": 16},
    "pfenet": {"channels": 16},
    "mianet": {
        "channels": 16,
        "embeddings": torch.randn(21, 300, generator=torch.Generator().manual_seed(0)),
    },
    "rare": {},
    "panet": {},
    "mlc": {},
}
WITHOUT_HEAD = ("panet", "mlc")


def build(method: str = "bam", shot: int = 1, **changes: object) -> FewShotModel:
    torch.manual_seed(0)
    options = {**METHODS[method], **changes}
    model = create_model(
        method, backbone="resnet18", backbone_options={"width": 8}, shot=shot, image_size=SIDE, **options
    )
    return model.eval()


def one(shot: int = 1, seed: int = 0) -> Episode:
    return random_episode(SIDE, batch=1, shots=shot, seed=seed)


@pytest.mark.parametrize("shot", [1, 5])
@pytest.mark.parametrize("method", METHODS)
def test_parameters_return_and_every_image_passes_the_backbone_once(method: str, shot: int) -> None:
    model = build(method, shot)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [parameter.requires_grad for parameter in model.parameters()]
    passes = []
    model.backbone.layer0[0].register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    plain = model(one(shot)).logits
    passes.clear()
    adapter = create_adapter("eftnet", model, rounds=3, lr=0.01)
    prediction = adapter(one(shot))
    assert sum(passes) == 1 + shot
    assert prediction.logits.shape == plain.shape and prediction.logits.isfinite().all()
    assert not prediction.logits.requires_grad
    assert prediction.parts["scores"].shape == (1, 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(one(shot)).logits, plain)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in WITHOUT_HEAD])
def test_steps_change_the_head_and_nothing_frozen(method: str) -> None:
    model = build(method)
    adapter = create_adapter("eftnet", model, lr=0.01)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with adapter.adaptation(one()) as adapted:
        adapted.step(adapted.round(adapted.unadapted()), 0.01)
        moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    frozen = ("backbone.", "base_head.", *(f"meta.{name}." for name in model.meta.adaptation.fixed))
    assert not [name for name in moved if name.startswith(frozen)]


def test_a_method_with_base_learner_and_ensemble_of_ours() -> None:
    model = build("pfenet", base="pspnet", ensemble="bam")
    adapter = create_adapter("eftnet", model, lr=0.01)
    with adapter.adaptation(one()) as adapted:
        outcome = adapted.round(adapted.unadapted())
    assert set(outcome.losses) == {"main", "meta"}


def test_learning_lowers_the_loss_on_a_fixed_label() -> None:
    adapter = create_adapter("eftnet", build(), lr=0.01)
    with adapter.adaptation(one()) as adapted:
        start = adapted.unadapted()
        losses = []
        for _ in range(6):
            outcome = adapted.round(start)
            losses.append(sum(loss.item() for loss in outcome.losses.values()))
            adapted.step(outcome, 0.01)
    assert losses[-1] < losses[0]


def test_nothing_is_kept_after_an_error() -> None:
    model = build()
    adapter = create_adapter("eftnet", model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(KeyboardInterrupt), adapter.adaptation(one()) as adapted:
        adapted.step(adapted.round(adapted.unadapted()), 0.1)
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_queries_are_adapted_to_one_by_one() -> None:
    adapter = create_adapter("eftnet", build(), rounds=2, lr=0.01)
    both = random_episode(SIDE, batch=2)
    second = Episode(**{name: value[1:] for name, value in vars(both).items() if value is not None})
    joined = adapter(both)
    assert joined.logits.shape == (2, 2, SIDE, SIDE)
    torch.testing.assert_close(joined.logits[1:], adapter(second).logits)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(context: type) -> None:
    adapter = create_adapter("eftnet", build().requires_grad_(False), rounds=2, lr=0.01)
    outside = adapter(one()).logits
    with context():
        assert torch.equal(adapter(one()).logits, outside)


def test_training_mode_comes_back() -> None:
    model = build().train()
    create_adapter("eftnet", model, rounds=1)(one())
    assert model.training


def test_padding_is_no_target() -> None:
    padding = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    padding[:, 40:] = True
    adapter = create_adapter("eftnet", build())
    with adapter.adaptation(replace(one(), query_padding=padding)) as adapted:
        label = adapted.pseudo_label(adapted.unadapted())
    assert (label[padding] == 255).all() and (label[~padding] != 255).all()


def test_confident_mask_is_the_top_of_the_foreground() -> None:
    adapter = create_adapter("eftnet", build())
    with adapter.adaptation(one()) as adapted:
        logits = torch.zeros(1, 2, SIDE, SIDE)
        logits[0, 1] = torch.linspace(-1, 1, SIDE * SIDE).view(SIDE, SIDE)
        mask = adapted.confident_mask(replace(adapted.unadapted(), logits=logits))
    assert mask.sum() == int(0.2 * (SIDE * SIDE // 2)) and mask[0, -1].all()


@pytest.mark.parametrize(("q2s_empty", "pixels"), [("whole_image", SIDE * SIDE), ("none", None)])
def test_empty_foreground(q2s_empty: str, pixels: int | None) -> None:
    adapter = create_adapter("eftnet", build(), rounds=2, q2s_empty=q2s_empty)
    with adapter.adaptation(one()) as adapted:
        empty = replace(
            adapted.unadapted(), logits=torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, SIDE, SIDE)
        )
        mask = adapted.confident_mask(empty)
        assert (mask is None) if pixels is None else mask.sum() == pixels
        assert adapted.round(empty).prediction.logits.isfinite().all()


def test_untouched_prediction_may_win() -> None:
    model = build()
    plain = model(one()).logits
    adapter = create_adapter("eftnet", model, rounds=2, include_zero_round=True)
    with adapter.adaptation(one()) as adapted:
        untouched = adapted.unadapted()
        assert 0.0 <= adapted.score(untouched) <= 1.0
    torch.testing.assert_close(untouched.logits, plain)


def test_a_round_that_diverged_is_not_chosen() -> None:
    prediction = create_adapter("eftnet", build(), rounds=3, lr=1e9)(one())
    assert prediction.parts["round"].item() == 1
    assert prediction.logits.isfinite().all()
    assert prediction.parts["scores"][0, 1:].isnan().all()


def test_ground_truth_is_an_oracle_that_warns_and_needs_the_mask() -> None:
    model = build()
    with pytest.warns(UserWarning, match="oracle") as caught:
        adapter = create_adapter("eftnet", model, rounds=1, discrimination_mask="ground_truth")
    assert adapter.oracle and len(caught) == 1
    with pytest.raises(ValueError, match="needs the query's mask"):
        adapter(replace(one(), query_mask=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter = create_adapter("eftnet", model, rounds=1)
    assert not adapter.oracle


def test_pseudo_selection_never_looks_at_the_ground_truth() -> None:
    adapter = create_adapter("eftnet", build(), rounds=2, lr=0.01)
    blind = adapter(replace(one(), query_mask=None))
    assert torch.equal(adapter(one()).logits, blind.logits)


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("adaptation", None, "nothing in its guidance can be blended"),
        ("inputs", Inputs(view=SupportView.MASKED_IMAGE), "sees the masked image"),
        ("inputs", Inputs(batch_dependent=True), "other images of the batch"),
    ],
)
def test_a_method_that_cannot_be_adapted_says_why(attribute: str, value: object, reason: str) -> None:
    model = build()
    setattr(model.meta, attribute, value)
    with pytest.raises(ValueError, match=f"cannot adapt BAM: .*{reason}"):
        create_adapter("eftnet", model)


def test_bad_input_is_named() -> None:
    model = build()
    with pytest.raises(ValueError, match="no adapter 'eftnets'"):
        create_adapter("eftnets", model)
    with pytest.raises(ValueError, match="no option 'ronds'; did you mean 'rounds'"):
        create_adapter("eftnet", model, ronds=3)
    with pytest.raises(ValueError, match="'rounds' of eftnet must be at least 1"):
        create_adapter("eftnet", model, rounds=0)
    with pytest.raises(ValueError, match="one way at a time"):
        create_adapter("eftnet", model)(random_episode(SIDE, batch=1, ways=2))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
def test_memory_does_not_grow_over_many_episodes() -> None:
    adapter = create_adapter("eftnet", build(), rounds=2, lr=0.01)
    episodes = [one(seed=seed) for seed in range(4)]

    def play(times: int) -> int:
        for number in range(times):
            adapter(episodes[number % len(episodes)])
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    start = play(40)
    assert play(160) - start < 40 * 2**20
