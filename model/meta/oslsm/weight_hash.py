"""A hash that turns a short code into many parameters, each of them a signed entry of the code."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightHash(nn.Module):
    """``output[i] = zeta[i] * code[kappa[i]]``; entries and signs are drawn once and never trained.

    Args:
        inputs: length of the code.
        outputs: number of parameters.
        seed: seed of the random entries and signs.

    Attributes:
        kappa: index of every output's entry, int64 [outputs].
        zeta: sign of every output, 1 or -1, float [outputs].
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
    """Draw entries, then signs, from one generator; entries by rejection of numbers that exceed the code.

    The result equals ``randint(0, inputs, outputs)`` and ``randint(0, 2, outputs)`` of NumPy's
    ``RandomState(seed)``.
    """
    generator = torch.Generator().manual_seed(seed)
    span = 2 ** max(1, (inputs - 1).bit_length())
    draws = torch.randint(0, span, (4 * outputs + 1024,), generator=generator, device="cpu")
    accepted = torch.nonzero(draws < inputs)[:outputs, 0]
    first_sign = int(accepted[-1]) + 1
    return draws[accepted], 2.0 * (draws[first_sign : first_sign + outputs] & 1) - 1


def hash_of_matrix(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Read ``kappa`` and ``zeta`` from an equivalent dense layer [outputs,inputs].

    Raises:
        ValueError: a row has several entries other than 0, or none.
    """
    if not bool((torch.count_nonzero(matrix, 1) == 1).all()):
        raise ValueError("the hashing layer (rw1s, rb1s) must have one entry other than 0 in every row")
    kappa = matrix.abs().argmax(1)
    return kappa, matrix.gather(1, kappa[:, None])[:, 0]
