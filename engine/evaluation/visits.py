"""The order in which a test visits its queries: query by query, queries of one class next to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from fewseg.dataset.loading.evaluation import ImageKey, PlannedEpisode, Support
from fewseg.engine.evaluation.tally import Task
from fewseg.util import distributed


class Part(NamedTuple):
    """The episodes of one task that share a query."""

    task: Task
    episodes: Sequence[PlannedEpisode]


@dataclass(frozen=True)
class Visit:
    """A query and all its episodes."""

    query: str
    parts: tuple[Part, ...]

    @property
    def episodes(self) -> Iterator[PlannedEpisode]:
        """The episodes of all tasks."""
        return chain.from_iterable(part.episodes for part in self.parts)

    def episodes_of(self, task: Task) -> list[PlannedEpisode]:
        """Return the episodes of one task."""
        return [planned for part in self.parts if part.task is task for planned in part.episodes]

    def images(self) -> Iterator[Support]:
        """Yield the supports of all episodes, each followed by its auxiliary images, in order of use."""
        for planned in self.episodes:
            yield from planned.supports
            yield from planned.auxiliary


def plan_visits(tasks: Sequence[Task]) -> list[Visit]:
    """Group the pending episodes by query, and sort the queries by their most frequent class."""
    by_query: dict[str, list[Part]] = {}
    for task in tasks:
        own: dict[str, list[PlannedEpisode]] = {}
        for planned in task.tally.episodes:
            own.setdefault(planned.spec.query, []).append(planned)
        for episodes in task.tally.pending(own.values()):
            by_query.setdefault(episodes[0].spec.query, []).append(Part(task, episodes))
    return sorted((Visit(query, tuple(parts)) for query, parts in by_query.items()), key=_main_class)


def own_share(visits: list[Visit]) -> list[Visit]:
    """Return this process's contiguous part of the visits, which therefore has few classes."""
    rank, processes = distributed.rank(), distributed.world_size()
    return visits[rank * len(visits) // processes : (rank + 1) * len(visits) // processes]


def first_uses(visits: Iterable[Visit]) -> list[ImageKey]:
    """Return every image that the visits need, in the order in which they need it first."""
    order: dict[ImageKey, None] = {}
    for visit in visits:
        order[visit.query] = None
        order.update(dict.fromkeys(visit.images()))
    return list(order)


def _main_class(visit: Visit) -> int:
    return Counter(planned.spec.class_ids[0] for planned in visit.episodes).most_common(1)[0][0]
