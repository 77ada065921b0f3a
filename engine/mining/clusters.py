"""k-means clustering that gives the same result on every machine."""

from __future__ import annotations

import torch
from torch import Tensor

_ITERATIONS = 100


def cluster(vectors: Tensor, count: int, seed: int) -> Tensor:
    """Return the centres [count,C] of vectors [n,C], n >= count, in double precision on the CPU.

    The initialisation is that of k-means++: every further centre is drawn with a probability proportional to
    the squared distance to the nearest centre so far. A cluster that loses all its vectors keeps its centre.
    """
    vectors = vectors.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    centres = vectors[torch.randint(len(vectors), (1,), generator=generator)]
    while len(centres) < count:
        weight = torch.cdist(vectors, centres).min(1).values.square()
        if not weight.any():  # fewer different vectors than centres
            weight = torch.ones_like(weight)
        centres = torch.cat([centres, vectors[torch.multinomial(weight, 1, generator=generator)]])
    assignment = torch.full((len(vectors),), -1)
    for _ in range(_ITERATIONS):
        nearest = torch.cdist(vectors, centres).argmin(1)
        if torch.equal(nearest, assignment):
            break
        assignment = nearest
        total = torch.zeros_like(centres).index_add_(0, assignment, vectors)
        members = torch.bincount(assignment, minlength=count).unsqueeze(1)
        centres = torch.where(members > 0, total / members.clamp_min(1), centres)
    return centres
