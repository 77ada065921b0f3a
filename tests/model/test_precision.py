"""Under autocast, comparisons of features are computed in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fewseg.model.ensemble import BaseMetaEnsemble
from fewseg.model.layer.gram import gram_distance, gram_matrix
from fewseg.model.layer.nearest_prototype import cosine_scores
from fewseg.model.layer.prior import largest_cosine, shot_priors, unit
from fewseg.model.meta.hsnet.hypercorrelation import hypercorrelation
from fewseg.model.meta.msanet.multi_similarity import mean_similarity
from fewseg.model.meta.plnet.pair_embedding import closeness


def drawn(*shape: int) -> Tensor:
    """Draw numbers that bfloat16 holds exactly."""
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator).bfloat16().float()


OCCUPIED = torch.zeros(2, 3, 3, dtype=torch.bool)
OCCUPIED[:, :2] = True
COMPARISONS = {
    "unit": lambda: (unit, (drawn(2, 8, 5, 5),)),
    "priors": lambda: (shot_priors, (drawn(2, 8, 5, 5), drawn(2, 3, 8, 4))),
    "largest cosine": lambda: (largest_cosine, (drawn(2, 8, 5, 5), drawn(2, 3, 8, 4))),
    "Gram matrix": lambda: (gram_matrix, (drawn(2, 8, 5, 5),)),
    "Gram distance": lambda: (gram_distance, (drawn(2, 8, 8), drawn(2, 3, 8, 8))),
    "prototypes": lambda: (cosine_scores, (drawn(2, 8, 5, 5), drawn(2, 3, 8), 20.0)),
    "mean similarity": lambda: (mean_similarity, (drawn(2, 8, 5, 5), drawn(2, 1, 8, 4), torch.ones(2, 1))),
    "hypercorrelation": lambda: (hypercorrelation, (drawn(2, 3, 8, 4, 4), drawn(2, 3, 8, 6), OCCUPIED)),
    "closeness": lambda: (closeness, (drawn(2, 8), drawn(2, 8), "cosine")),
    "ensemble": lambda: (BaseMetaEnsemble("low"), (drawn(2, 2, 5, 5), drawn(2, 4, 5, 5), drawn(2))),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_not_rounded(name: str) -> None:
    compare, given = COMPARISONS[name]()
    exact = compare(*given)
    reduced = [
        value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value
        for value in given
    ]
    with torch.autocast("cpu", torch.bfloat16):
        found = compare(*reduced)
        assert torch.mm(drawn(2, 2), drawn(2, 2)).dtype == torch.bfloat16  # else this would prove nothing
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
