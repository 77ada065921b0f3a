"""Prototype mixtures: several prototypes per image, fitted by expectation maximisation.

B. Yang et al., "Prototype Mixture Models for Few-shot Semantic Segmentation", ECCV 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

_EPSILON = 1e-6


class PrototypeMixture(nn.Module):
    """Fit mixtures of unit vectors to features; nothing here learns or lets a gradient through.

    Args:
        channels: of the features.
        components: vectors of every mixture that is fitted.
        rounds: of expectation and maximisation.
        concentration: of the components, the paper's kappa.
        redraw: whether every fit starts from new random vectors, as published RPMMs do. Otherwise all of them
            start from fixed ones, drawn from the stream that the number of components seeds.
    """

    def __init__(
        self,
        channels: int,
        components: Sequence[int],
        *,
        rounds: int = 10,
        concentration: float = 20.0,
        redraw: bool = False,
    ) -> None:
        super().__init__()
        self.components = tuple(components)
        self.rounds, self.concentration, self.redraw = rounds, concentration, redraw
        for number, count in enumerate(self.components):
            # The frozen stream of NumPy's legacy generator, from which recorded runs of published code start.
            normal = np.random.RandomState(count).standard_normal((channels, count))
            drawn = torch.from_numpy(normal).float() * (2 / count) ** 0.5
            self.register_buffer(f"start{number}", _unit(drawn, 0), persistent=False)

    def start(self, number: int) -> Tensor:
        """Return the vectors [C,k] that fits of the ``number``-th mixture start from."""
        start = self.get_buffer(f"start{number}")
        return _unit(torch.randn_like(start), 0) if self.redraw else start

    @torch.no_grad()
    def forward(self, *features: Tensor) -> list[list[Tensor]]:
        """Fit every mixture to each of several ``features`` [B,C,...] from the same start.

        Positions that are zero take part without adding anything. Fewer other positions than components
        make some components equal, and none at all makes them zero.

        Returns:
            For every one of ``features``, for every mixture, its unit vectors [B,k,C].
        """
        starts = [self.start(number) for number in range(len(self.components))]
        with torch.autocast(features[0].device.type, enabled=False):  # too fine for reduced precision
            return [
                [self._fit(vectors.flatten(2).to(start), start) for start in starts] for vectors in features
            ]

    def _fit(self, vectors: Tensor, start: Tensor) -> Tensor:
        """Fit one mixture to vectors [B,C,n] -> [B,k,C]."""
        means = start.expand(len(vectors), -1, -1)
        for _ in range(self.rounds):
            share = (self.concentration * torch.bmm(vectors.transpose(1, 2), means)).softmax(2)
            share = share / (_EPSILON + share.sum(1, keepdim=True))
            means = _unit(torch.bmm(vectors, share), 1)
        return means.transpose(1, 2)


@torch.no_grad()
def mixture_posterior(feature: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Return how probable every component is at every position of ``feature`` [B,C,h,w].

    Args:
        feature: not normalised.
        inside, outside: components of the object and of the background, [B,k,C] each.

    Returns:
        [B,2k,h,w], the object's components first.
    """
    components = torch.cat([inside, outside], 1)
    return torch.bmm(components, feature.flatten(2)).softmax(1).unflatten(2, feature.shape[2:])


def object_posterior(feature: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Return the probabilities of background and object, [B,2,h,w]; the arguments are as above."""
    posterior = mixture_posterior(feature, inside, outside)
    within, without = posterior.split((inside.shape[1], outside.shape[1]), 1)
    return torch.stack([without.sum(1), within.sum(1)], 1)


def _unit(vectors: Tensor, axis: int) -> Tensor:
    return vectors / (_EPSILON + vectors.norm(dim=axis, keepdim=True))
