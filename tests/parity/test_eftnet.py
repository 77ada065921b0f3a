"""EFTNet's adaptation against the recorded runs of the published code, which wraps MSANet."""

import contextlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fewseg.model import create_adapter, create_model
from fewseg.model.adapt.eftnet import EFTNet
from fewseg.model.adapt.episode import AdaptedEpisode, Outcome
from fewseg.model.checkpoint.published import published_names
from fewseg.model.contract import Episode, Prediction
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close, assert_norms_and_sums, episode_of, fill
from tests.parity.rounding import FACTOR, amplified, perturb

CASES = [
    ("resnet50", "finetune_1shot_pseudo"),
    ("resnet50", "finetune_1shot_official"),
    ("resnet50", "finetune_2shot_official"),
    ("vgg16", "finetune_1shot_pseudo"),
    ("vgg16", "finetune_1shot_official"),
]
DIVERGING = ("resnet50", "finetune_1shot_official_default_lr")
"""Random weights diverge at the default rate: from round 3 on no foreground is predicted."""

PADDED_ROWS = 9
TOLERANCE = 1e-4
SENSITIVITY = "sensitivity_to_1e-6_relative_weight_noise (max abs change)"
"""Of the published code in float32, whose steps of learning round as well: by how much its logits changed."""


def build(backbone: str, name: str) -> tuple[EFTNet, object]:
    variant, case = load_case(f"eftnet/{backbone}", name)
    extra = variant.manifest["state_dict_5shot_extra"]
    for key, shape in extra.items():  # listed for five shots, recorded with two
        extra[key] = [case.shot if axis == 5 else axis for axis in shape]
    config = case.meta["config"]
    model = create_model("msanet", backbone=backbone, shot=case.shot, image_size=97)
    fill(model, variant, case)
    oracle = case.meta["discrimination_mask"].startswith("ground_truth")
    with pytest.warns(UserWarning, match="oracle") if oracle else contextlib.nullcontext():
        adapter = create_adapter(
            "eftnet",
            model.eval(),
            rounds=config["ft_number"],
            lr=config["ft_base_lr"],
            power=config["ft_power"],
            weighting=config["change_weighting"],
            discrimination_mask="ground_truth" if oracle else "pseudo",
            **{key: config[key] for key in ("q2s_filt_para", "sr_aux_weight1", "momentum", "weight_decay")},
        )
    assert adapter.oracle == oracle
    adapter.Adapted = following(case)
    return adapter, case


def following(case: object) -> type[AdaptedEpisode]:
    """Return an adapted episode that goes on with the recorded decisions, having compared its own.

    What is learnt in a round depends on which pixels lie above a threshold. A single one that rounding moves
    across it would set the next rounds on another course.
    """

    def decided(ours: Tensor, recorded: str) -> Tensor:
        theirs = torch.from_numpy(case.arrays[recorded].whole()).reshape(ours.shape).to(ours.dtype)
        assert (ours != theirs).double().mean() < 2e-3
        return theirs

    class Following(AdaptedEpisode):
        number = 0

        def round(self, before: Prediction) -> Outcome:
            self.number += 1
            return super().round(before)

        def pseudo_label(self, before: Prediction) -> Tensor:
            return decided(super().pseudo_label(before), f"round{self.number}_pseudo")

        def confident_mask(self, before: Prediction) -> Tensor:
            return decided(super().confident_mask(before), f"round{self.number}_q2s_mask")

    return Following


def padded_episode(case: object) -> Episode:
    episode = episode_of(case)
    padding = torch.zeros(episode.query.shape[0], *episode.query.shape[-2:], dtype=torch.bool)
    padding[:, -PADDED_ROWS:] = True
    return replace(episode, query_padding=padding)


@pytest.mark.parametrize(("backbone", "name"), [*CASES, DIVERGING])
@amplified
def test_every_round(backbone: str, name: str) -> None:
    adapter, case = build(backbone, name)
    arrays, finetune = case.arrays, case.meta["finetune"]
    limit = max(case.meta[SENSITIVITY][f"round{finetune['rounds']}_final_sub2"], TOLERANCE)
    before_all = {k: v.clone() for k, v in adapter.model.state_dict().items()}
    with adapter.adaptation(padded_episode(case)) as adapted:
        before = adapted.unadapted()
        assert_close(before.logits, arrays["zero_final"], TOLERANCE)
        assert_close(before.parts["meta"], arrays["zero_meta"], 1e-3)
        for recorded in finetune["per_round"]:
            number = recorded["round"]
            if arrays[f"round{number}_q2s_mask"].whole().all():  # see the test of the diverging case
                return
            outcome = adapted.round(before)
            rate = adapter.options.rate(number)
            assert rate == pytest.approx(finetune["learning_rates"][number - 1], rel=1e-12)
            for ours, theirs in ((outcome.prediction, "final"), (outcome.reverse[-1], "s2q_final")):
                assert_close(ours.logits[:, :, ::2, ::2], arrays[f"round{number}_{theirs}_sub2"], limit)
            assert_close(outcome.score, recorded["s2q_iou"], 1e-3, 0)
            assert_close(outcome.losses["main"], recorded["main_loss"], 1e-3, 0)
            meta = adapter.options.sr_aux_weight1 * recorded["aux_loss1"]
            assert_close(outcome.losses["meta"], meta, 0, 1e-3)
            adapted.step(outcome, rate)
            before = outcome.prediction
        assert_change(adapter, before_all, finetune["parameter_delta_after_last_step [l2 norm, sum]"])
    assert all(torch.equal(v, before_all[k]) for k, v in adapter.model.state_dict().items())


def assert_change(adapter: EFTNet, before: dict[str, Tensor], recorded: dict[str, list[float]]) -> None:
    ours = {published: name for name, published in published_names(adapter.model).items()}
    after = adapter.model.state_dict()
    moved = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert moved == {ours[name] for name, (norm, _) in recorded.items() if norm > 0}
    changes = {published: after[ours[published]] - before[ours[published]] for published in recorded}
    assert_norms_and_sums(changes, recorded, 2e-2, 2e-2, smallest=1e-7)


@pytest.mark.parametrize(("backbone", "name"), CASES)
def test_chosen_round(backbone: str, name: str) -> None:
    adapter, case = build(backbone, name)
    prediction = adapter(padded_episode(case))
    noise = case.meta[SENSITIVITY]["chosen_final"]
    assert prediction.parts["round"].item() == case.meta["finetune"]["chosen_round"]
    assert_close(prediction.logits, case.arrays["chosen_final"], max(10 * noise, TOLERANCE))
    assert_close(prediction.parts["meta"], case.arrays["chosen_meta"], max(100 * noise, 1e-3), 1e-3)
    assert_close(prediction.parts["base"][:, :, ::4, ::4], case.arrays["chosen_base_sub4"])
    scores = [recorded["s2q_iou"] for recorded in case.meta["finetune"]["per_round"]]
    assert_close(prediction.parts["scores"][0], scores, 1e-3, 0)


def test_rounding_decides_after_a_collapse() -> None:
    """The record of the diverging case cannot be met more closely than the last digit of the weights allows.

    Without foreground the whole query stands in for a support. Every position then matches itself with a
    cosine of 1 but for rounding, which the prior stretches to [0,1].
    """

    def third_round(seed: int | None) -> tuple[Tensor, object]:
        adapter, case = build(*DIVERGING)
        if seed is not None:
            perturb(adapter.model, seed=seed)
        with adapter.adaptation(padded_episode(case)) as adapted:
            before = adapted.unadapted()
            for number in (1, 2, 3):
                outcome = adapted.round(before)
                adapted.step(outcome, adapter.options.rate(number))
                before = outcome.prediction
        return before.logits, case

    ours, case = third_round(None)
    change = float((third_round(1)[0] - ours).abs().max())
    assert change > 10 * TOLERANCE
    assert_close(ours[:, :, ::2, ::2], case.arrays["round3_final_sub2"], FACTOR * change, 0)
