"""Decodes the episodes of a test in batches that fill the device, query by query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fewseg.dataset.loading.evaluation import PlannedEpisode
from fewseg.engine.evaluation.batch_size import BatchSize, memory_of
from fewseg.engine.evaluation.cache import EncodingCache
from fewseg.engine.evaluation.encoder import Encoder, Query, chunks
from fewseg.engine.evaluation.images import ImageStream
from fewseg.engine.evaluation.tally import Counted, Tally, Task
from fewseg.engine.evaluation.visits import Visit, first_uses
from fewseg.engine.setup.interrupt import Check
from fewseg.model.encoding import stack_encodings
from fewseg.util.progress import progress


class Runner:
    """Encodes the images of visits, and decodes and counts their episodes.

    On a CPU, every image and every episode is processed alone, as in the plain loop. On a GPU, images are
    encoded and episodes decoded in batches, which may show several queries. The host waits for the GPU once
    per batch: for the counts of the batch before, while the GPU is busy with the next one.

    Args:
        tasks: their models encode equally, and their episodes are of one fold.
        visits: what this process decodes.
        budget: bytes for the encodings that are needed again.
        check: called regularly; may raise to stop.
        workers: processes that read images for a GPU.
    """

    def __init__(
        self, tasks: Sequence[Task], visits: Sequence[Visit], budget: float, check: Check, workers: int
    ) -> None:
        self.tasks, self.visits, self.check = tasks, visits, check
        for task in tasks:
            task.model.eval()
        model, episodes = tasks[0].model, tasks[0].tally.episodes
        self.device = model.device
        self._on_gpu = self.device.type != "cpu"
        of_one_size = episodes.fold.resize.rule != "native"  # only such images can be stacked
        self.size = BatchSize(memory_of(self.device) if of_one_size else None, budget)
        images = ImageStream(
            *(episodes, first_uses(visits), workers if self._on_gpu else 0),
            compact=self._on_gpu,
            check=check,
        )
        cache = EncodingCache((key for visit in visits for key in visit.images()), budget)
        self.encoder = Encoder(model, images, cache, self.size)
        self._counted: tuple[Tally, Sequence[Counted]] | None = None

    def run(self) -> None:
        """Count the predictions for all episodes."""
        for visits in self._together():
            self.check()
            queries = self.encoder.queries([visit.query for visit in visits])
            for task in self.tasks:
                episodes = [planned for visit in visits for planned in visit.episodes_of(task)]
                for batch in chunks(episodes, self.size.now):
                    with self.size.measured():
                        self._count(task, queries, batch)
            self.size.grow()
        self._store()

    def _together(self) -> Iterator[list[Visit]]:
        """Group the visits such that no task has more episodes than a batch, unless one visit has more."""
        group: list[Visit] = []
        for visit in progress(self.visits, "queries"):
            if group and self._most_episodes([*group, visit]) > self.size.now:
                yield group
                group = []
            group.append(visit)
        if group:
            yield group

    def _most_episodes(self, visits: Sequence[Visit]) -> int:
        return max(sum(len(visit.episodes_of(task)) for visit in visits) for task in self.tasks)

    def _count(self, task: Task, queries: Mapping[str, Query], batch: Sequence[PlannedEpisode]) -> None:
        asked = [queries[planned.spec.query] for planned in batch]
        supports = self.encoder.supports(batch, queries)
        query = dict(asked[0].encoding) if len(asked) == 1 else stack_encodings([q.encoding for q in asked])
        task.tally.seed(batch[0], self.device)
        prediction = task.model.decode(query, supports, asked[0].size)
        counted = task.tally.count(batch, prediction, [query.label for query in asked])
        self._store()
        self._counted = task.tally, counted
        if not self._on_gpu:  # nothing is waited for
            self._store()

    def _store(self) -> None:
        """Store what was counted last, for which the host waits."""
        if self._counted is not None:
            tally, counted = self._counted
            self._counted = None
            tally.store(counted)
