"""The estimate for a GPU: which operations count, and what they are said to take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewseg.util.errors import UserError
from tools.benchmark import main
from tools.benchmarks import estimate, evaluation
from tools.benchmarks.estimate import Card, count_evaluation, full_test
from tools.benchmarks.forms import FORMS
from tools.benchmarks.operations import Operation, operations_of
from tools.benchmarks.pascal import EPISODES, FOLDS
from tools.episode_parts import DECODE, QUERY, SUPPORT

CARD = Card(tflops=2.0, reduced_tflops=8.0, bandwidth=0.5, launch=4.0)


def test_an_operation_counts_with_its_flops_and_bytes() -> None:
    layer, image = nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.zeros(2, 3, 8, 6)
    with torch.inference_mode():
        (convolution,) = operations_of(lambda: layer(image))
    assert convolution.flops == 2 * (2 * 4 * 8 * 6) * 27
    assert convolution.moved == 4 * (image.numel() + 4 * 27 + 2 * 4 * 8 * 6)
    assert not convolution.reduced


def test_views_and_allocations_start_no_kernel() -> None:
    x = torch.ones(4, 6)
    assert operations_of(lambda: x.view(6, 4).t()[1:].unsqueeze(0).detach()) == []
    assert operations_of(lambda: torch.empty(3).expand(2, 3)) == []
    (addition,) = operations_of(lambda: x + torch.ones(1).expand(4, 6))[-1:]
    assert addition == Operation("add", 0, 4 * (24 + 1 + 24), False)


def test_the_backward_pass_counts() -> None:
    weight = torch.ones(5, 4, requires_grad=True)
    operations = operations_of(lambda: (torch.ones(3, 5) @ weight).sum().backward())
    assert [o.flops for o in operations if o.flops] == [2 * 3 * 5 * 4] * 2


def test_the_longest_of_three_times_counts() -> None:
    by_flops = Operation("mm", flops=20_000_000, moved=100, reduced=False)
    by_bytes = Operation("add", flops=0, moved=10_000_000, reduced=False)
    by_launch = Operation("add", flops=0, moved=10, reduced=True)
    assert CARD.seconds([by_flops]) == pytest.approx(10e-6)
    assert CARD.seconds([by_bytes]) == pytest.approx(20e-6)
    assert CARD.seconds([by_launch]) == pytest.approx(4e-6)
    assert CARD.seconds([Operation("mm", 80_000_000, 0, True)]) == pytest.approx(10e-6)
    assert CARD.seconds([by_flops, by_bytes, by_launch]) == pytest.approx(34e-6)
    assert CARD.launching([by_flops, by_launch]) == pytest.approx(4 / 14)


def test_a_full_test_adds_up() -> None:
    def launches(number: int) -> list[Operation]:
        return [Operation("add", 0, 1, False)] * number

    counted = {QUERY: launches(20), SUPPORT: launches(10), DECODE: launches(6)}
    counted |= {evaluation.COUNT: launches(2), evaluation.PUBLISHED: launches(50)}
    counted |= {evaluation.PUBLISHED_COUNT: launches(2)}
    found = full_test(CARD, {1: counted}, batch=2)
    assert found["published loop"] == pytest.approx(4 * EPISODES * 52 * 4e-6)
    once = sum(10 * queries + 5 * pairs + EPISODES * (3 + 1) for queries, pairs in FOLDS)
    assert found["encode once"] == pytest.approx(once * 4e-6)


def test_in_bfloat16_fewer_bytes_move() -> None:
    options = {"backbone": "resnet18", "backbone_options": {"width": 8}, "channels": 16}
    full, half = (
        count_evaluation(1, 1, 33, FORMS[name], **options)[QUERY] for name in ("float32", "bfloat16")
    )
    convolutions = [[o for o in found if o.name == "convolution"] for found in (full, half)]
    assert [o.flops for o in convolutions[0]] == [o.flops for o in convolutions[1]]
    assert all(o.reduced for o in convolutions[1]) and not any(o.reduced for o in full)
    assert sum(o.moved for o in convolutions[1]) == sum(o.moved for o in convolutions[0]) / 2


def test_the_estimate_is_printed_as_such(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "SHOTS", (2,))
    card = ["--tflops", "60", "--bandwidth", "4.8", "--launch", "5"]
    main(["estimate", *card, "--size", "33", "--backbone", "resnet18", "--batch", "1"])
    out = capsys.readouterr().out
    assert out.startswith("An estimate, not a measurement")
    for what in ("published step", "our step", "encode a query, 2-shot", "decode an episode, 2-shot"):
        assert f"\nfloat32     {what} " in out
    assert "\nencode once, float32" in out and "bfloat16" not in out
    with pytest.raises(UserError, match="must be above 0"):
        main(["estimate", "--tflops", "0", "--bandwidth", "4.8", "--launch", "5"])
