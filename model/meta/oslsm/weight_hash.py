"""A short code turned into many parameters, each of them one entry of the code up to its sign."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightHash(nn.Module):
    """``output[i] = zeta[i] * code[kappa[i]]``; which entry and which sign is drawn once and never learnt.

    Args:
        inputs: length of the code.
        outputs: number of parameters.
        seed: of the draw.

    Attributes:
        kappa: the entry of every output, int64 [outputs].
        zeta: its factor, 1 or -1, float [outputs].
    """

    kappa: Tensor
    zeta: Tensor

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        kappa, zeta = _draw(inputs, outputs, seed)
        self.register_buffer("kappa", kappa)
        self.register_buffer("zeta", zeta)

    def forward(self, code: Tensor) -> Tensor:
        """Turn codes [B,inputs] into parameters [B,outputs]."""
        return code[:, self.kappa] * self.zeta


def _draw(inputs: int, outputs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw entries, then signs, from one stream of bits; entries by rejection of what exceeds the code.

    It is the stream of NumPy's ``RandomState(seed)`` under ``randint(0, inputs, outputs)`` and
    ``randint(0, 2, outputs)``.
    """
    generator = torch.Generator().manual_seed(seed)
    span = 2 ** max(1, (inputs - 1).bit_length())
    draws = torch.randint(0, span, (4 * outputs + 1024,), generator=generator, device="cpu")
    accepted = torch.nonzero(draws < inputs)[:outputs, 0]
    behind = int(accepted[-1]) + 1
    return draws[accepted], 2.0 * (draws[behind : behind + outputs] & 1) - 1


def hash_of_matrix(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Read ``kappa`` and ``zeta`` off a dense layer [outputs,inputs] that does the same.

    Raises:
        ValueError: a row has several entries, or none.
    """
    if not bool((torch.count_nonzero(matrix, 1) == 1).all()):
        raise ValueError("the hashing layer (rw1s, rb1s) must have one entry other than 0 in every row")
    kappa = matrix.abs().argmax(1)
    return kappa, matrix.gather(1, kappa[:, None])[:, 0]
