"""EFTNet's adaptation against the recorded runs of the published code, which wraps MSANet.

Learning amplifies rounding, so logits may differ by ten times what a relative weight noise of 1e-6 does to
them.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from recorded import assert_close, episode_of, fill, load_case

from model import create_adapter, create_model
from model.adapt.eftnet import EFTNet
from model.interface import Episode
from model.published import published_names

CASES = [
    ("resnet50", "finetune_1shot_pseudo"),
    ("resnet50", "finetune_1shot_official"),
    ("resnet50", "finetune_1shot_official_default_lr"),
    ("resnet50", "finetune_2shot_official"),
    ("vgg16", "finetune_1shot_pseudo"),
    ("vgg16", "finetune_1shot_official"),
]
SENSITIVITY = "sensitivity_to_1e-6_relative_weight_noise (max abs change)"
PADDED_ROWS = 9


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
    return adapter, case


def padded_episode(case: object) -> Episode:
    episode = episode_of(case)
    padding = torch.zeros(episode.query.shape[0], *episode.query.shape[-2:], dtype=torch.bool)
    padding[:, -PADDED_ROWS:] = True
    return replace(episode, query_padding=padding)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Fine-tuning amplifies rounding, which depends on the number of threads; the cases are of one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("backbone", "name"), CASES)
def test_every_round(backbone: str, name: str) -> None:
    adapter, case = build(backbone, name)
    arrays, finetune, noise = case.arrays, case.meta["finetune"], case.meta[SENSITIVITY]
    last = f"round{finetune['rounds']}_final_sub2"
    limit = max(10 * noise[last], 1e-4)
    loss_limit = 1e-2 if name.endswith("default_lr") else 1e-3  # random weights diverge at that rate
    before_all = {k: v.clone() for k, v in adapter.model.state_dict().items()}
    with adapter.adaptation(padded_episode(case)) as adapted:
        before = adapted.untouched()
        assert_close(before.logits, arrays["zero_final"], max(10 * noise["zero_final"], 1e-4))
        assert_close(before.parts["meta"], arrays["zero_meta"], max(30 * noise["zero_final"], 1e-3))
        for recorded in finetune["per_round"]:
            number = recorded["round"]
            outcome = adapted.round(before)
            rate = adapter.options.rate(number)
            assert rate == pytest.approx(finetune["learning_rates"][number - 1], rel=1e-12)
            for ours, theirs in (
                (outcome.pseudo_label, arrays[f"round{number}_pseudo"]),
                (outcome.confident_mask, arrays[f"round{number}_q2s_mask"]),
            ):
                assert (ours.numpy() != theirs.reshape(ours.shape)).mean() < 2e-3
            assert_close(
                outcome.prediction.logits[:, :, ::2, ::2], arrays[f"round{number}_final_sub2"], limit
            )
            reverse = outcome.reverse[-1].logits[:, :, ::2, ::2]
            assert_close(reverse, arrays[f"round{number}_s2q_final_sub2"], limit)
            assert outcome.score == pytest.approx(recorded["s2q_iou"], abs=1e-3)
            assert outcome.losses["main"].item() == pytest.approx(recorded["main_loss"], abs=loss_limit)
            meta = adapter.options.sr_aux_weight1 * recorded["aux_loss1"]
            assert outcome.losses["meta"].item() == pytest.approx(meta, rel=loss_limit)
            adapted.step(outcome, rate)
            before = outcome.prediction
        assert_change(adapter, before_all, finetune["parameter_delta_after_last_step [l2 norm, sum]"])
    assert all(torch.equal(v, before_all[k]) for k, v in adapter.model.state_dict().items())


def assert_change(adapter: EFTNet, before: dict[str, torch.Tensor], recorded: dict[str, list[float]]) -> None:
    ours = {published: name for name, published in published_names(adapter.model).items()}
    after = adapter.model.state_dict()
    moved = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert moved == {ours[name] for name, (norm, _) in recorded.items() if norm > 0}
    for published, (norm, total) in recorded.items():
        change = after[ours[published]] - before[ours[published]]
        assert float(change.norm()) == pytest.approx(norm, rel=2e-2, abs=2e-7), published
        assert abs(float(change.sum()) - total) <= 2e-2 * norm * change.numel() ** 0.5 + 1e-7, published


@pytest.mark.parametrize(("backbone", "name"), CASES)
def test_chosen_round(backbone: str, name: str) -> None:
    adapter, case = build(backbone, name)
    prediction = adapter(padded_episode(case))
    noise = case.meta[SENSITIVITY]["chosen_final"]
    assert prediction.parts["round"].item() == case.meta["finetune"]["chosen_round"]
    assert_close(prediction.logits, case.arrays["chosen_final"], max(10 * noise, 1e-4))
    assert_close(prediction.parts["meta"], case.arrays["chosen_meta"], max(100 * noise, 1e-3), 1e-3)
    assert_close(prediction.parts["base"][:, :, ::4, ::4], case.arrays["chosen_base_sub4"])
    scores = [recorded["s2q_iou"] for recorded in case.meta["finetune"]["per_round"]]
    np.testing.assert_allclose(prediction.parts["scores"][0], scores, atol=1e-3)
