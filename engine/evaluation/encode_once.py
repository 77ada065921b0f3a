"""Evaluation that encodes every image once.

The episodes of a run are known beforehand, and an encoding depends only on one image (and class). So the
episodes are processed query by query: a query is encoded, all its episodes are decoded, and its encoding is
dropped; the encoding of a (support, class) is cached until its last use, as far as memory allows. The counts
are integers, so they do not depend on the order: on a CPU they equal those of ``evaluate_one_by_one``.

Tests of one checkpoint with several numbers of supports share the encodings: each has its own model, and one
of the models encodes for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewseg.dataset.loading.evaluation import EpisodeSet, PlannedEpisode, Support
from fewseg.engine.evaluation.cache import GIB, EncodingCache
from fewseg.engine.evaluation.one_by_one import count_one_by_one, grouped
from fewseg.engine.evaluation.prefetch import prefetch
from fewseg.engine.evaluation.scores import MakeScores, Scores
from fewseg.engine.evaluation.tally import Observe, Tally, Task
from fewseg.engine.setup.interrupt import Check, nothing
from fewseg.model.contract import Encoding, Prediction
from fewseg.model.encoding import repeat_encoding
from fewseg.model.fewshot import FewShotModel
from fewseg.util import distributed
from fewseg.util.progress import progress


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

    def images(self) -> Iterator[Support]:
        """Yield the supports of all episodes, each followed by its auxiliary images, in order of use."""
        for planned in self.episodes:
            yield from planned.supports
            yield from planned.auxiliary


def evaluate(
    model: FewShotModel,
    episodes: EpisodeSet,
    *,
    cache_gib: float = 4.0,
    precision: AbstractContextManager[Any] | None = None,
    check: Check = nothing,
    observe: Observe = nothing,
    scores_of: MakeScores = Scores,
) -> list[Scores]:
    """Return the scores of every manifest.

    Args:
        model: the model on its device; it is set to evaluation mode.
        episodes: the episodes, which are divided among the processes.
        cache_gib, precision, check: see ``evaluate_together``.
        observe: called with every prediction, in the process that decodes the episode.
        scores_of: creates the scores that count the predictions of a manifest.
    """
    task = Task(model, Tally(episodes, scores_of, observe))
    evaluate_together([task], cache_gib=cache_gib, precision=precision, check=check)
    return task.tally.total()


def evaluate_together(
    tasks: Sequence[Task],
    *,
    cache_gib: float = 4.0,
    precision: AbstractContextManager[Any] | None = None,
    check: Check = nothing,
) -> None:
    """Count the predictions for the pending episodes of several tasks, of which this process has a share.

    Args:
        tasks: their models encode equally (see ``encode_equally``), and their episodes are of one fold.
        cache_gib: memory in GiB for the encodings of supports that are needed again.
        precision: autocast context to run in; full precision by default.
        check: called regularly; may raise to stop the evaluation.
    """
    with torch.inference_mode(), precision or nullcontext(), ExitStack() as kept:
        if tasks[0].model.batch_dependent:
            for task in tasks:
                count_one_by_one(task, check)
            return
        visits = _own_share(plan_visits(tasks))
        for task in tasks:
            kept.enter_context(task.tally.keeping(len(tasks)))
        _Runner(tasks, visits, cache_gib * GIB, check).run()


def encode_equally(tasks: Sequence[Task]) -> bool:
    """Return whether the models of all tasks encode alike, so that one can encode for all.

    The models must have the same weights and options except for the number of supports, on which no encoding
    depends by the contract of ``MetaLearner``. Models of different numbers may still differ in the entries of
    an encoding, so those of the first query and the first support are compared, bit by bit.
    """
    if any(task.model.batch_dependent for task in tasks):
        return False
    episodes = tasks[0].tally.episodes
    first = next(iter(episodes))
    query, _ = episodes.load_query(first.spec.query)
    name, class_id = first.supports[0]
    support = episodes.load_support(name, class_id)
    with torch.inference_mode():
        models = [task.model.eval() for task in tasks]
        queries = [model.encode_query(query[None].to(model.device)) for model in models]
        supports = [_encode_support(model, class_id, *support) for model in models]
    return all(_equal(encoding, queries[0]) for encoding in queries) and all(
        _equal(encoding, supports[0]) for encoding in supports
    )


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


def _main_class(visit: Visit) -> int:
    return Counter(planned.spec.class_ids[0] for planned in visit.episodes).most_common(1)[0][0]


def _own_share(visits: list[Visit]) -> list[Visit]:
    """Return this process's contiguous part of the visits, which therefore has few classes."""
    rank, processes = distributed.rank(), distributed.world_size()
    return visits[rank * len(visits) // processes : (rank + 1) * len(visits) // processes]


class _Runner:
    """Encodes and decodes the visits one after the other."""

    def __init__(self, tasks: Sequence[Task], visits: Sequence[Visit], budget: float, check: Check) -> None:
        self.visits, self.check = visits, check
        for task in tasks:
            task.model.eval()
        self.encoder, self.episodes = tasks[0].model, tasks[0].tally.episodes
        self.device = self.encoder.device
        self.batch = _batch_on(self.device)
        self.cache = EncodingCache((key for visit in visits for key in visit.images()), budget)
        self.seen: set[Support] = set()
        self.loaded = prefetch(self._loads(), check=check)

    def run(self) -> None:
        """Count the predictions for all episodes, query by query."""
        for visit in progress(self.visits, "queries"):
            self.check()
            image, label = next(self.loaded)
            query = self.encoder.encode_query(image[None].to(self.device))
            for task, episodes in visit.parts:
                remaining = iter(episodes)
                while batch := list(islice(remaining, self.batch)):
                    prediction = self._decode(task, query, batch, tuple(image.shape[-2:]))
                    task.tally.add(batch, prediction, [label] * len(batch))

    def _decode(
        self, task: Task, query: Encoding, batch: Sequence[PlannedEpisode], size: tuple[int, int]
    ) -> Prediction:
        supports = self._supports(batch)
        task.tally.seed(batch[0], self.device)
        return task.model.decode(repeat_encoding(query, len(batch)), supports, size)

    def _supports(self, batch: Sequence[PlannedEpisode]) -> Encoding:
        """Return the encodings of all supports and auxiliary images; their first axes are episodes, ways."""
        supports: list[Encoding] = []
        auxiliary: list[Encoding] = []
        for planned in batch:
            supports += map(self._encoding, planned.supports)
            auxiliary += map(self._encoding, planned.auxiliary)
        return grouped(supports, auxiliary, len(batch), len(batch[0].spec.class_ids))

    def _encoding(self, key: Support) -> Encoding:
        return self.cache.get(key, partial(self._encode, key))

    def _encode(self, key: Support) -> Encoding:
        # An image was prefetched for its first use; if its encoding has left the cache, it is read again.
        loaded = self._load(key)() if key in self.seen else next(self.loaded)
        self.seen.add(key)
        if key[1] is None:
            return self.encoder.encode_auxiliary(loaded[None].to(self.device))
        return _encode_support(self.encoder, key[1], *loaded)

    def _load(self, key: Support) -> Callable[[], Any]:
        name, class_id = key
        if class_id is None:
            return partial(self.episodes.load_auxiliary, name)
        return partial(self.episodes.load_support, name, class_id)

    def _loads(self) -> Iterator[Callable[[], Any]]:
        """Yield functions that read the images, in the order in which ``run`` needs them."""
        seen: set[Support] = set()
        for visit in self.visits:
            yield partial(self.episodes.load_query, visit.query)
            for key in visit.images():
                if key not in seen:
                    seen.add(key)
                    yield self._load(key)


def _encode_support(model: FewShotModel, class_id: int, image: Tensor, mask: Tensor) -> Encoding:
    inputs = (tensor[None].to(model.device) for tensor in (image, mask, torch.tensor(class_id)))
    return model.encode_support(*inputs)


def _equal(one: Encoding, other: Encoding) -> bool:
    """Return whether two encodings have the same entries, bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _batch_on(device: torch.device) -> int:
    """Return the batch size of decoding: one episode on a CPU, where larger batches round differently."""
    return 1 if device.type == "cpu" else 8
