"""Losses of several processes: together they are the loss of the whole batch."""

from __future__ import annotations

import pytest
import torch

from fewseg.model.episode import IGNORE
from fewseg.model.layer.binary import pixel_binary_loss
from fewseg.model.layer.loss import means_over_processes, pixel_cross_entropy


@pytest.mark.parametrize("loss", [pixel_cross_entropy, pixel_binary_loss])
@pytest.mark.parametrize("void", [0, 2])
def test_processes_with_unequally_many_pixels_have_the_loss_of_the_whole_batch(loss, void: int) -> None:
    logits = torch.randn(4, 2, 5, 5, requires_grad=True)
    label = torch.randint(0, 2, (4, 5, 5))
    label[0, :3] = IGNORE
    label[:void] = IGNORE  # the first process may have no labelled pixel at all
    whole = loss(logits, label)
    counts = [(part != IGNORE).sum() for part in label.split(2)]
    assert counts[0] != counts[1]

    def average(count: torch.Tensor) -> torch.Tensor:
        assert count in counts
        return sum(counts) / 2

    with means_over_processes(average):
        parts = [loss(*part) for part in zip(logits.split(2), label.split(2), strict=True)]
    torch.testing.assert_close(sum(parts) / 2, whole)
    expected, found = (torch.autograd.grad(value, logits)[0] for value in (whole, sum(parts) / 2))
    torch.testing.assert_close(found, expected)
    assert loss(logits, label) == whole
