"""Atrous spatial pyramid pooling without normalisation, as BAM's family uses it (Chen et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


class ASPP(nn.Module):
    """Five parallel branches: the global mean, a 1x1 convolution, and 3x3 ones of dilation 6, 12 and 18.

    Args:
        inputs, outputs: channels of the input, and of the output of each branch.
        dropout: probability of dropping whole channels after every branch.
        kaiming: whether the weights are initialised as He et al. proposed, or by PyTorch's default.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0, *, kaiming: bool = True) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(inputs, outputs, 1), nn.Conv2d(inputs, outputs, 1)]
        convolutions += [nn.Conv2d(inputs, outputs, 3, padding=d, dilation=d) for d in (6, 12, 18)]
        for index, convolution in enumerate(convolutions):
            if kaiming:
                nn.init.kaiming_normal_(convolution.weight)
            layers = [convolution, nn.ReLU(inplace=True)] + [nn.Dropout2d(dropout)] * (dropout > 0)
            self.add_module(f"branch{index}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B,inputs,h,w] -> [B,5*outputs,h,w]."""
        mean, *branches = self._branches(x)
        return torch.cat([mean.expand(-1, -1, *x.shape[-2:]), *branches], 1)

    def then(self, layers: nn.Sequential, x: Tensor) -> Tensor:
        """Return ``layers(self(x))``, [B,inputs,h,w] -> [B,*,h,w], at lower cost.

        The mean is the same at all positions, so it is convolved once and not copied to every position.

        Args:
            layers: a chain that begins with a 1x1 convolution.
            x: the input.
        """
        convolution = layers[0]
        assert isinstance(convolution, nn.Conv2d)
        mean, *branches = self._branches(x)
        own, others = convolution.weight.tensor_split([mean.shape[1]], 1)
        joined = conv2d(torch.cat(branches, 1), others, convolution.bias)
        return layers[1:](joined.add_(conv2d(mean, own)))

    def _branches(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the branches; that of the global mean is [B,outputs,1,1]."""
        mean_branch, *branches = self.children()
        return [mean_branch(x.mean((2, 3), keepdim=True)), *(branch(x) for branch in branches)]
