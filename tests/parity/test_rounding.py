"""What an amplified test lets pass, and what it does not."""

import pytest
import torch
from torch import Tensor, nn

from tests.parity.comparison import assert_close, assert_norms_and_sums
from tests.parity.rounding import amplified, prepare

TINY = 1e-12


def cancelling_sum(error: float = 0.0) -> Tensor:
    """Return a small difference of two large products, so that float32 loses most of its digits."""
    model = nn.Linear(64, 64, bias=False)
    nn.init.orthogonal_(model.weight, generator=torch.Generator().manual_seed(0))
    prepare(model)
    vector = torch.linspace(900, 1100, 64, dtype=model.weight.dtype)
    return (model(vector) * (1 + error)).norm() - vector.norm()


def test_what_rounding_moves_passes_only_where_it_is_measured() -> None:
    recorded = cancelling_sum().item()

    def compare() -> None:
        assert_close(cancelling_sum(), recorded, TINY, 0)

    amplified(compare)()
    assert abs(recorded) > TINY  # the exact difference is zero


@pytest.mark.parametrize("error", [1e-5, -1e-5])
def test_an_error_still_fails(error: float) -> None:
    recorded = cancelling_sum().item()

    def compare() -> None:
        assert_close(cancelling_sum(error), recorded, TINY, 0)

    with pytest.raises(AssertionError):
        amplified(compare)()


def test_the_failing_norm_is_named() -> None:
    tensors = {"one": torch.ones(4), "two": torch.ones(4)}
    assert_norms_and_sums(tensors, {"one": [2.0, 4.0], "two": [2.0, 4.0]}, 1e-3, 1e-3)
    with pytest.raises(AssertionError, match=r"norm of two: 2, recorded 2\.01, which is 2\.49 of the toler"):
        assert_norms_and_sums(tensors, {"one": [2.0, 4.0], "two": [2.01, 4.0]}, 2e-3, 2e-3)
    with pytest.raises(AssertionError, match="sum of one"):
        assert_norms_and_sums(tensors, {"one": [2.0, 4.1], "two": [2.0, 4.0]}, 2e-3, 2e-3)


def test_both_runs_compare_the_same_figures() -> None:
    runs = []

    def compare() -> None:
        runs.append(None)
        for _ in range(3 - len(runs)):
            assert_close(torch.zeros(2), [0.0, 0.0])

    with pytest.raises(AssertionError, match="different figures"):
        amplified(compare)()
