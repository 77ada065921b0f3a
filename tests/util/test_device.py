"""Copies from a device, with tensors that only say that they lie on one."""

from __future__ import annotations

import torch

from fewseg.util.device import to_host


class Away(torch.Tensor):
    """A tensor that says it lies on a device, and counts the copies to the CPU."""

    copies = 0

    @property
    def device(self) -> torch.device:
        return torch.device("meta")

    def cpu(self) -> torch.Tensor:
        Away.copies += 1
        return self.as_subclass(torch.Tensor)


def test_all_tensors_of_a_device_come_in_one_copy() -> None:
    values = [torch.arange(6).view(1, 2, 3), torch.arange(4), torch.arange(8).view(2, 4) + 100]
    given = [values[0].as_subclass(Away), values[1], values[2].as_subclass(Away)]
    Away.copies = 0
    found = to_host(given)
    assert Away.copies == 1 and found[1] is values[1]
    for copy, value in zip(found, values, strict=True):
        assert copy.shape == value.shape and copy.tolist() == value.tolist()


def test_without_a_device_nothing_is_copied() -> None:
    values = [torch.arange(3), torch.arange(4)]
    found = to_host(values)
    assert all(copy is value for copy, value in zip(found, values, strict=True))
