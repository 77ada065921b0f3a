"""ASPP: convolving its branches without copying the global mean to every position."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import grad

from fewseg.model.layer.aspp import ASPP


@pytest.mark.parametrize("bias", [False, True])
def test_layers_after_it_get_what_they_would_get_from_all_branches(bias: bool) -> None:
    torch.manual_seed(0)
    aspp = ASPP(4, 3).double()
    layers = nn.Sequential(nn.Conv2d(15, 6, 1, bias=bias), nn.ReLU(inplace=True)).double()
    x = torch.randn(2, 4, 9, 13, dtype=torch.float64, requires_grad=True)
    expected, ours = layers(aspp(x)), aspp.then(layers, x)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-13)
    inputs = [x, *aspp.parameters(), *layers.parameters()]
    cotangent = torch.randn_like(expected)
    for mine, theirs in zip(grad(ours, inputs, cotangent), grad(expected, inputs, cotangent), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
