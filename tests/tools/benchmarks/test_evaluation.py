"""The benchmark of the evaluation: what it prints, and how it adds up."""

from __future__ import annotations

import pytest
import torch

from fewseg.util.errors import UserError
from tools.benchmark import main
from tools.benchmarks.evaluation import (
    ALONE,
    COUNT,
    PLAIN,
    PUBLISHED,
    PUBLISHED_COUNT,
    Bench,
    Measured,
    show,
    show_test,
)
from tools.benchmarks.forms import FORMS
from tools.episode_parts import COMPARE, DECODE, QUERY, SUPPORT

TINY = ["--size", "33", "--backbone", "resnet18", "--rounds", "1"]


def measured() -> Measured:
    """Return made-up costs: a form that takes half the time of float32."""
    times = {PUBLISHED: 3.0, ALONE: 2.0, QUERY: 1.0, SUPPORT: 1.0, DECODE: 0.2, PLAIN: 0.1}
    flops = {PUBLISHED: 6e9, ALONE: 4e9, QUERY: 2e9, SUPPORT: 2e9, DECODE: 1e9, PLAIN: 4e8}
    seconds = {("float32", what): value for what, value in times.items()}
    seconds |= {("bfloat16", what): times[what] / 2 for what in (QUERY, SUPPORT, DECODE, PLAIN)}
    seconds |= {("float32", PUBLISHED_COUNT): 0.5, ("float32", COUNT): 0.1}
    return Measured(flops, seconds, {("float32", ALONE): 1e-7})


def test_shares_and_sums_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    found = measured()
    assert found.share_of_floor("float32", QUERY) == pytest.approx(0.5)
    assert found.share_of_floor("float32", PLAIN) == 1
    assert found.one_by_one(PUBLISHED) == 3.5 and found.one_by_one(ALONE) == 2.1
    show(found)
    out = " ".join(capsys.readouterr().out.split())
    assert "float32 encode a query 2.0 1.0000 2 50 %" in out
    once = 364 + 365 + 5000 * 0.2
    assert f"float32: 5000 episodes of fold 0, networks alone: {once:.0f} s (extrapolated)" in out
    assert f"{3 * 5000 / once:.1f} times as fast as the published loop in float32" in out
    assert f"{2 * 5000 / once:.1f} times as fast as our model without" in out
    show_test({1: found})
    out = " ".join(capsys.readouterr().out.split())
    whole = 1737 + 1923 + 4 * 5000 * (0.2 + 0.1)
    assert f"published loop, float32 {4 * 5000 * 3.5 / 60:.1f} minutes" in out
    assert f"encode once, float32 {whole / 60:.1f} minutes, {70000 / whole:.1f} times as fast" in out
    half = (1737 + 1923) / 2 + 4 * 5000 * (0.1 + 0.1)
    assert f"encode once, bfloat16 {half / 60:.1f} minutes" in out


def test_every_part_is_printed_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluation", *TINY, "--shots", "2", "--forms", "bfloat16", "unfolded", "--batch", "2"])
    out = capsys.readouterr().out
    assert f"torch {torch.__version__}" in out.splitlines()[0]
    for form in ("float32", "bfloat16"):
        for what in (PUBLISHED, ALONE, QUERY, SUPPORT, COMPARE, DECODE, PLAIN):
            assert f"\n{form:18}{what}" in out
        assert f"encode once, {form}" in out
    assert "encode once, unfolded" in out
    assert "33 px, 2-shot, 2 at a time" in out
    difference = [
        float(line.split()[-1]) for line in out.splitlines() if "our model" in line and "differ" in line
    ]
    assert difference[0] < 1e-5 < difference[1] < 0.1


def test_a_batch_costs_as_many_flops_an_image_as_one() -> None:
    options = {"backbone": "resnet18", "backbone_options": {"width": 8}}
    with torch.inference_mode():
        one, two = (
            Bench(torch.device("cpu"), 1, batch, 33, **options).measure({"float32": FORMS["float32"]}, 1)
            for batch in (1, 2)
        )
    assert one.flops == two.flops
    assert set(one.deviations) == {("float32", PUBLISHED), ("float32", ALONE)}


def test_a_machine_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in ("evaluation", "step", "loader", "adapt", "hsnet"):
        with pytest.raises(UserError, match="--device cuda: torch finds no GPU on this machine"):
            main([command, "--device", "cuda"])
    with pytest.raises(UserError, match="only a GPU computes in TF32"):
        main(["evaluation", "--forms", "tf32"])
