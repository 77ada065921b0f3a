"""k-means, the same on every machine."""

from __future__ import annotations

import torch
from torch import Tensor

_ITERATIONS = 100


def cluster(vectors: Tensor, count: int, seed: int) -> Tensor:
    """Return the centres [count,C] of vectors [n,C], n >= count, in double precision on the CPU.

    The start is that of k-means++: every further centre is drawn with a chance that grows with the square of
    its distance to the centres so far. A cluster that loses all its vectors keeps its centre.
    """
    vectors = vectors.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    centres = vectors[torch.randint(len(vectors), (1,), generator=generator)]
    while len(centres) < count:
        chance = torch.cdist(vectors, centres).min(1).values.square()
        if not chance.any():  # fewer different vectors than centres
            chance = torch.ones_like(chance)
        centres = torch.cat([centres, vectors[torch.multinomial(chance, 1, generator=generator)]])
    owner = torch.full((len(vectors),), -1)
    for _ in range(_ITERATIONS):
        nearest = torch.cdist(vectors, centres).argmin(1)
        if torch.equal(nearest, owner):
            break
        owner = nearest
        total = torch.zeros_like(centres).index_add_(0, owner, vectors)
        members = torch.bincount(owner, minlength=count).unsqueeze(1)
        centres = torch.where(members > 0, total / members.clamp_min(1), centres)
    return centres
