"""The cosines between all query and all support positions (Min et al., ICCV 2021, section 4.1).

On a CPU only the positions of the object are compared. On a GPU the host would have to wait for their number
in every image, so there all positions are compared in one product.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu_

from fewseg.model import waiting
from fewseg.model.layer.pooling import gather_positions
from fewseg.model.layer.precision import in_float32

_EPSILON = 1e-5


def unit_vectors(features: Tensor) -> Tensor:
    """Scale the channel vectors of features [B,L,C,...] of L layers to length one; zero vectors stay zero."""
    return features / (features.norm(dim=2, keepdim=True) + _EPSILON)


def object_vectors(features: Tensor, mask: Tensor) -> Tensor:
    """Gather the unit vectors under a mask -> [B,L,C,P], padded with zeros to the largest object.

    Args:
        features: features of L layers, [B,L,C,h,w].
        mask: soft foreground on the same grid, [B,1,h,w]; positions above 0 are gathered.
    """
    inside = mask > 0
    vectors = gather_positions(features.flatten(1, 2), inside) * gather_positions(mask, inside)
    return unit_vectors(vectors.unflatten(1, features.shape[1:3]))


@in_float32
def hypercorrelation(query: Tensor, support_object: Tensor, occupied: Tensor) -> Tensor:
    """Return the positive cosines of L layers, [B,hs,ws,L,hq,wq]; zero outside the support object.

    Args:
        query: unit vectors [B,L,C,hq,wq].
        support_object: unit vectors of the object [B,L,C,P].
        occupied: the object on the support grid, bool [B,hs,ws].
    """
    layers, grid = query.shape[1], query.shape[3:]
    if waiting.would_wait(occupied):
        flat = _at_their_positions(support_object, occupied.flatten(1))
        positive = relu_(torch.matmul(flat.transpose(2, 3), query.flatten(3)))
        return positive.transpose(1, 2).reshape(len(query), *occupied.shape[1:], layers, *grid)
    cosines = query.new_zeros(len(query), occupied[0].numel(), layers, grid.numel())
    for image, inside in enumerate(occupied.flatten(1)):
        positions = inside.nonzero()[:, 0]
        vectors = support_object[image, :, :, : len(positions)]
        positive = relu_(torch.bmm(vectors.transpose(1, 2), query[image].flatten(2)))
        cosines[image, positions] = positive.transpose(0, 1).to(cosines.dtype)
    return cosines.view(len(query), *occupied.shape[1:], layers, *grid)


def _at_their_positions(support_object: Tensor, occupied: Tensor) -> Tensor:
    """Put gathered vectors [B,L,C,P] back to the occupied ones of n positions, [B,n] -> [B,L,C,n]."""
    rank = (occupied.cumsum(1) - 1).clamp_min(0)
    index = rank[:, None, None].expand(-1, *support_object.shape[1:3], -1)
    return support_object.gather(3, index).masked_fill(~occupied[:, None, None], 0)
