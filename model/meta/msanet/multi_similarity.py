"""MSANet's multi-similarity: the mean similarity of every query position to the support object.

E. Iqbal et al., "MSANet: Multi-Similarity and Attention Guidance for Boosting Few-Shot Segmentation", 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.model import waiting
from fewseg.model.layer.precision import in_float32
from fewseg.model.layer.products import products

_EPSILON = 1e-5
_CHUNK = 1024
"""Number of support positions whose similarities to a query are in memory at once."""
_WORTHWHILE = 1024
"""Number of query positions from which looking up similarities is faster than computing them."""
_REMEMBERED = 2**22
"""Largest number of similarities that a memory holds."""


def normalise(vectors: Tensor) -> Tensor:
    """Scale vectors along axis 1 to length one, as in the published code; zero vectors stay zero."""
    return vectors / (vectors.norm(dim=1, keepdim=True) + _EPSILON)


def confident_positions(mask: Tensor) -> Tensor:
    """Select the positions of a soft mask [B,1,h,w] that reach the mean of its positive values."""
    positive = mask > 0
    mean = mask.sum((2, 3), keepdim=True) / positive.sum((2, 3), keepdim=True).clamp_min(1)
    return positive & (mask >= torch.minimum(mean, mask.amax((2, 3), keepdim=True)))


class SimilarityMemory:
    """The similarities of one query with an object's vectors, for objects that change only slightly.

    It holds the similarities of the last object, which are looked up by a fingerprint of each vector.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor] | None = None

    def total(self, query: Tensor, vectors: Tensor) -> Tensor:
        """Sum the positive part of the products over the object: query [C,P], vectors [C,O] -> [P]."""
        keys = _fingerprint(vectors)
        rows = query.new_empty(len(keys), query.shape[1])
        stored = torch.zeros_like(keys, dtype=torch.bool)
        if self._last is not None:
            last_keys, last_rows = self._last
            stored = torch.isin(keys, last_keys)
            ordered, order = last_keys.sort()
            rows[stored] = last_rows[order[torch.searchsorted(ordered, keys[stored])]]
        rows[~stored] = (vectors[:, ~stored].T @ query).clamp_(min=0)
        self._last = keys, rows
        return rows.sum(0)


@in_float32
def mean_similarity(
    query: Tensor, objects: Tensor, counts: Tensor, memory: SimilarityMemory | None = None
) -> Tensor:
    """Average the positive part of a query position's cosines over all positions of each support object.

    Args:
        query: unit vectors [B,C,h,w].
        objects: unit vectors of K objects [B,K,C,P], padded with zero vectors, which add nothing.
        counts: number of positions of each object, [B,K].
        memory: earlier comparisons of the same query with one object, for B = K = 1. It is used on a CPU
            only, because the host would have to wait for the number of vectors that are not found in it.

    Returns:
        [B,K,h,w].
    """
    height, width = query.shape[-2:]
    positions, size = height * width, objects.shape[-1] * height * width
    worthwhile = positions >= _WORTHWHILE and size <= _REMEMBERED and not waiting.would_wait(query)
    if memory is not None and worthwhile:
        total = memory.total(query[0].flatten(1), objects[0, 0])
        return (total / counts[0, 0]).view(1, 1, height, width)
    shots = []
    for vectors, count in zip(objects.unbind(1), counts.unbind(1), strict=True):
        parts = [products(query, part).clamp_(min=0).sum(1) for part in vectors.split(_CHUNK, 2)]
        shots.append(torch.stack(parts).sum(0) / count[:, None, None])
    return torch.stack(shots, 1)


def _fingerprint(vectors: Tensor) -> Tensor:
    """Return an integer [P] for each of the vectors [C,P]; bitwise equal vectors have equal integers."""
    bits = vectors.contiguous().view(torch.int32).long()
    weights = torch.arange(1, 2 * len(bits), 2, device=bits.device)
    return (bits * weights[:, None]).sum(0)
