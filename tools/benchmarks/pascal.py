"""What a full test on PASCAL-5i asks for: 4 folds, 5 seeds of 1000 episodes each, 1 and 5 shots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EPISODES = 5 * 1000
"""Episodes of a run: a fold with a number of shots."""

SHOTS = (1, 5)
"""Numbers of shots of a full test."""

FOLDS = ((364, 365), (445, 467), (592, 734), (336, 357))
"""Fold -> the different queries of a run's episodes, and the different pairs of support image and class.

They are those of protocol ``bam``, with 1 shot as with 5.
"""


COMPARISONS = {1: (4584, 4716, 4897, 4572), 5: (16410, 19184, 22478, 16089)}
"""Number of shots -> the different pairs of query and support in a run, for every fold."""


@dataclass(frozen=True)
class Costs:
    """What the parts of an evaluation cost, in seconds each.

    Attributes:
        query, support: encoding of one image.
        decode: of one episode.
        count: resizing one prediction to its label and counting pixels.
        compare: of one query with one support, where that is no part of decoding.
        shot: number of supports of an episode.
    """

    query: float
    support: float
    decode: float
    count: float
    compare: float = 0.0
    shot: int = 1

    def run(self, fold: int) -> float:
        """Return the seconds of a run, which encodes all images, and compares two of them, once."""
        queries, pairs = FOLDS[fold]
        encoded = queries * self.query + pairs * self.support
        compared = COMPARISONS[self.shot][fold] if self.shot in COMPARISONS else self.shot * EPISODES
        return encoded + compared * self.compare + EPISODES * (self.decode + self.count)


def full_test_seconds(costs: Mapping[int, Costs]) -> float:
    """Return the seconds of all folds, for ``costs`` by the number of shots."""
    return sum(of_shots.run(fold) for of_shots in costs.values() for fold in range(len(FOLDS)))


def one_by_one_seconds(episode: Mapping[int, float]) -> float:
    """Return the seconds of all folds one episode after the other, for seconds by the number of shots."""
    return sum(len(FOLDS) * EPISODES * seconds for seconds in episode.values())
