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
    """Fit mixtures of unit vectors to features, without trained parameters and without gradient.

    Args:
        channels: channels of the features.
        components: number of vectors of every mixture that is fitted.
        rounds: number of iterations of expectation and maximisation.
        concentration: concentration of the components, the paper's kappa.
        redraw: whether every fit starts from new random vectors, as in published RPMMs. Otherwise every fit
            starts from the same vectors, drawn by a generator that the number of components seeds.
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
        for index, count in enumerate(self.components):
            # NumPy's legacy generator, whose numbers never change: recorded runs of published code use them.
            normal = np.random.RandomState(count).standard_normal((channels, count))
            drawn = torch.from_numpy(normal).float() * (2 / count) ** 0.5
            self.register_buffer(f"start{index}", _unit(drawn, 0), persistent=False)

    def start(self, index: int) -> Tensor:
        """Return the initial vectors [C,k] of fits of the mixture ``index``."""
        start = self.get_buffer(f"start{index}")
        return _unit(torch.randn_like(start), 0) if self.redraw else start

    @torch.no_grad()
    def forward(self, *features: Tensor) -> list[list[Tensor]]:
        """Fit every mixture to each of several ``features`` [B,C,...], from the same initial vectors.

        Positions whose vector is zero do not contribute. If fewer other positions than components exist,
        some components are equal; if there are none, all components are zero.

        Returns:
            For every one of ``features`` and every mixture, its unit vectors [B,k,C].
        """
        starts = [self.start(index) for index in range(len(self.components))]
        with torch.autocast(features[0].device.type, enabled=False):  # EM needs full precision
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
    """Return the probability of every component at every position of ``feature`` [B,C,h,w].

    Args:
        feature: query feature, not normalised.
        inside, outside: components of the object and of the background, [B,k,C] each.

    Returns:
        [B,2k,h,w], the object's components first.
    """
    components = torch.cat([inside, outside], 1)
    return torch.bmm(components, feature.flatten(2)).softmax(1).unflatten(2, feature.shape[2:])


def object_posterior(feature: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Return the probabilities of background and object, [B,2,h,w]; see ``mixture_posterior``."""
    posterior = mixture_posterior(feature, inside, outside)
    of_object, of_background = posterior.split((inside.shape[1], outside.shape[1]), 1)
    return torch.stack([of_background.sum(1), of_object.sum(1)], 1)


def _unit(vectors: Tensor, axis: int) -> Tensor:
    return vectors / (_EPSILON + vectors.norm(dim=axis, keepdim=True))
