"""The benchmark of the training step."""

from __future__ import annotations

import pytest

from tools.benchmark import main
from tools.benchmarks.step import FROZEN, IN_PARTS, OURS, PUBLISHED, show


def test_every_step_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["step", "--size", "33", "--backbone", "resnet18", "--rounds", "1", "--forms", "bfloat16"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "BAM, resnet18, 33 px, 1-shot, stage 2, batches of 2"
    shown = [(line[:18].strip(), line[18:42].strip()) for line in lines[2:-1]]
    expected = [(form, what) for form in ("float32", "bfloat16") for what in (PUBLISHED, OURS, FROZEN)]
    assert shown == [*expected, ("float32", IN_PARTS)]


def test_ratios_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    show({("float32", PUBLISHED): 6.0, ("float32", OURS): 4.0, ("float32", FROZEN): 3.0}, batch=2)
    published, ours, frozen = capsys.readouterr().out.splitlines()
    assert "6.0000 s" in published and "1.00 times" in published
    assert "0.5 episodes/s" in ours and "1.50 times" in ours
    assert "75 % of our step" in frozen
