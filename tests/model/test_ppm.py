"""Pyramid pooling: convolving it without enlarging it first."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import grad

from fewseg.model.layer.pyramid_pooling import PyramidPooling


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolve_equals_the_convolution_of_the_enlarged_branches(kernel):
    pooling = PyramidPooling(8, 2, (1, 2, 3, 6)).double().eval()
    convolution = nn.Conv2d(16, 5, kernel, padding=kernel // 2, bias=False).double()
    x = torch.randn(2, 8, 9, 13, dtype=torch.float64, requires_grad=True)
    expected, ours = convolution(pooling(x)), pooling.convolve(x, convolution)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-13)
    inputs = [x, convolution.weight, *pooling.parameters()]
    cotangent = torch.randn_like(expected)
    for mine, theirs in zip(grad(ours, inputs, cotangent), grad(expected, inputs, cotangent), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
