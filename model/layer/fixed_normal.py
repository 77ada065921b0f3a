"""Normal numbers that are the same everywhere and for ever: the frozen stream of numpy's ``RandomState``.

The recorded runs of some published methods start from that stream. It is a Mersenne twister, which the
standard library has, seeded by Knuth's rule, and Marsaglia's polar method.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

_WORDS = 624
_MASK = 0xFFFFFFFF


def fixed_normal(seed: int, *shape: int) -> Tensor:
    """Return ``RandomState(seed).standard_normal(shape)``, float64."""
    return torch.tensor(list(islice(_stream(seed), math.prod(shape))), dtype=torch.float64).view(shape)


def _stream(seed: int) -> Iterator[float]:
    """Yield one standard normal number after the other."""
    twister = random.Random()
    twister.setstate((3, (*_seeded(seed), _WORDS), None))
    while True:
        first, second = 2 * twister.random() - 1, 2 * twister.random() - 1
        square = first * first + second * second
        if 0 < square < 1:
            length = math.sqrt(-2 * math.log(square) / square)
            yield length * second
            yield length * first


def _seeded(seed: int) -> Iterator[int]:
    """Yield the twister's words after seeding."""
    word = seed & _MASK
    for position in range(1, _WORDS + 1):
        yield word
        word = (1812433253 * (word ^ (word >> 30)) + position) & _MASK
