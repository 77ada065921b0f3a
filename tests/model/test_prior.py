"""PFENet's prior against the formula written out over all pairs of positions."""

from __future__ import annotations

import torch
from torch import Tensor

from fewseg.model.layer.prior import largest_cosine, object_features, shot_priors


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Return query features, features of three supports per query, and their masks, one of them empty."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 6, 5, 7, generator=generator, dtype=torch.float64)
    query[0, :, 2, 3] = 0
    support = torch.randn(2, 3, 6, 5, 7, generator=generator, dtype=torch.float64)
    mask = (torch.rand(2, 3, 1, 5, 7, generator=generator) > 0.6).double()
    mask[1, 2] = 0
    return query, support, mask


def gathered(support: Tensor, mask: Tensor) -> Tensor:
    return object_features(support.flatten(0, 1), mask.flatten(0, 1)).unflatten(0, support.shape[:2])


def dense_cosine(query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
    """Return the largest cosine with all positions of a masked support, those outside being zero vectors."""
    product = torch.einsum("bchw,bkcij->bkhwij", query, support * mask)
    lengths = query.norm(dim=1)[:, None, :, :, None, None] * support.norm(dim=2)[:, :, None, None]
    return (product / (lengths + 1e-7)).flatten(4).amax(4)


def test_largest_cosine_is_that_of_all_positions() -> None:
    query, support, mask = drawn()
    ours = largest_cosine(query, gathered(support, mask))
    torch.testing.assert_close(ours, dense_cosine(query, support, mask), rtol=0, atol=1e-6)
    assert (ours[0, :, 2, 3] == 0).all() and (ours[1, 2] == 0).all()


def test_priors_fill_the_range_of_every_support() -> None:
    query, support, mask = drawn()
    priors = shot_priors(query, gathered(support, mask))
    assert priors.shape == (2, 3, 1, 5, 7)
    expected = dense_cosine(query, support, mask)
    low, high = expected.amin((2, 3), keepdim=True), expected.amax((2, 3), keepdim=True)
    expected = (expected - low) / (high - low + 1e-7)
    torch.testing.assert_close(priors[:, :, 0], expected, rtol=0, atol=1e-5)
