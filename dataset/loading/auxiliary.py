"""Auxiliary images: images of an episode in addition to query and supports.

They have their own random generators, so that episodes are otherwise the same with and without them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fewseg.dataset.episodes.sampling import EpisodeSpec, generator
from fewseg.dataset.lists.image_lists import EpisodeLists
from fewseg.dataset.loading.store import ImageStore
from fewseg.util.errors import DataError

Names = tuple[tuple[str, ...], ...]
"""For each way, the names of its auxiliary images."""


class AuxiliarySource(Protocol):
    """A source of auxiliary images."""

    @property
    def count(self) -> int:
        """The number of images per way, M."""

    @property
    def labelled(self) -> bool:
        """Whether the images have mined labels."""

    def draw(self, spec: EpisodeSpec, *key: int | str) -> Names:
        """Draw the images of an episode: a pure function of the episode and of ``key``."""

    def read(self, store: ImageStore, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an image uint8 [H,W,3] and its mined label uint8 [H,W], if it has one."""


@dataclass(frozen=True)
class ClassSets:
    """Auxiliary sets: images listed for the way's class, whose masks are never read.

    Attributes:
        lists: the lists that the episodes are drawn from, too.
        count: images per way, M.
    """

    lists: EpisodeLists
    count: int
    labelled = False

    def check(self, shot: int) -> None:
        """Raise DataError if a class has too few images for query, ``shot`` supports and auxiliary set."""
        needed = 1 + shot + self.count
        few = {c: len(images) for c, images in self.lists.supports.items() if len(images) < needed}
        if few:
            class_id, count = min(few.items(), key=lambda item: item[1])
            more = f" (and {len(few) - 1} more classes too few)" if len(few) > 1 else ""
            raise DataError(
                f"{self.lists.source.root}: auxiliary {self.count}: an episode needs {needed} images of its "
                f"class, but class {class_id} has {count}{more}; lower Data.auxiliary or shot, or set "
                "auxiliary 0"
            )

    def draw(self, spec: EpisodeSpec, *key: int | str) -> Names:
        """Draw images of each way's class that are not already in the episode."""
        names, rng = self.lists.source.names, generator("auxiliary", *key)
        shown = {spec.query, *(name for way in spec.supports for name in way)}
        return tuple(self._draw_way(names, class_id, shown, rng) for class_id in spec.class_ids)

    def read(self, store: ImageStore, name: str) -> tuple[np.ndarray, None]:
        """Return an image."""
        return store.image(name), None

    def _draw_way(
        self, names: Sequence[str], class_id: int, shown: set[str], rng: random.Random
    ) -> tuple[str, ...]:
        pool = self.lists.supports[class_id]
        drawn = rng.sample(pool, min(len(pool), self.count + len(shown)))
        fresh = [names[position] for position in drawn if names[position] not in shown]
        if len(fresh) < self.count:
            raise DataError(
                f"{self.lists.source.root}: auxiliary {self.count}: class {class_id} has {len(fresh)} images "
                "that the episode does not show already; lower Data.auxiliary, ways or shot"
            )
        return tuple(fresh[: self.count])
