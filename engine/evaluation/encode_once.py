"""Evaluation that encodes every image once.

The episodes of a run are known beforehand, and an encoding depends only on one image (and class). So the
episodes are processed query by query: a query is encoded, all its episodes are decoded, and its encoding is
dropped; the encoding of a (support, class) is cached until its last use, as far as memory allows. The counts
are integers, so they do not depend on the order: on a CPU they equal those of ``evaluate_one_by_one``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch

from fewseg.dataset.loading.evaluation import EpisodeSet, PlannedEpisode, Support
from fewseg.engine.evaluation.cache import GIB, EncodingCache
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one, grouped
from fewseg.engine.evaluation.prefetch import prefetch
from fewseg.engine.evaluation.scores import MakeScores, Observe, Predicted, Scores, count
from fewseg.engine.setup.interrupt import Check, nothing
from fewseg.model.contract import Encoding, Prediction
from fewseg.model.encoding import repeat_encoding
from fewseg.model.fewshot import FewShotModel
from fewseg.util import distributed
from fewseg.util.progress import progress


@dataclass(frozen=True)
class Visit:
    """A query and all its episodes."""

    query: str
    episodes: tuple[PlannedEpisode, ...]

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
        cache_gib: memory in GiB for the encodings of supports that are needed again.
        precision: autocast context to run in; full precision by default.
        check: called regularly; may raise to stop the evaluation.
        observe: called with every prediction, in the process that decodes the episode.
        scores_of: creates the scores that count the predictions of a manifest.
    """
    with torch.inference_mode(), precision or nullcontext():
        if model.batch_dependent:
            return evaluate_one_by_one(model, episodes, check=check, observe=observe, scores_of=scores_of)
        visits = _own_share(plan_visits(episodes))
        runner = _Runner(model.eval(), episodes, visits, cache_gib * GIB, check)
        return count(runner.predictions(), episodes, scores_of, observe)


def plan_visits(episodes: EpisodeSet) -> list[Visit]:
    """Group the episodes of all manifests by query, and sort the queries by their most frequent class."""
    by_query: dict[str, list[PlannedEpisode]] = {}
    for planned in episodes:
        by_query.setdefault(planned.spec.query, []).append(planned)
    visits = [Visit(query, tuple(planned_episodes)) for query, planned_episodes in by_query.items()]
    return sorted(visits, key=_main_class)


def _main_class(visit: Visit) -> int:
    return Counter(planned.spec.class_ids[0] for planned in visit.episodes).most_common(1)[0][0]


def _own_share(visits: list[Visit]) -> list[Visit]:
    """Return this process's contiguous part of the visits, which therefore has few classes."""
    rank, processes = distributed.rank(), distributed.world_size()
    return visits[rank * len(visits) // processes : (rank + 1) * len(visits) // processes]


class _Runner:
    """Encodes and decodes the visits one after the other."""

    def __init__(
        self,
        model: FewShotModel,
        episodes: EpisodeSet,
        visits: Sequence[Visit],
        budget: float,
        check: Check,
    ) -> None:
        self.model, self.episodes, self.visits, self.check = model, episodes, visits, check
        self.device = model.device
        self.batch = _batch_on(self.device)
        self.cache = EncodingCache((key for visit in visits for key in visit.images()), budget)
        self.seen: set[Support] = set()
        self.loaded = prefetch(self._loads(), check=check)

    def predictions(self) -> Iterator[Predicted]:
        """Yield the predictions for all episodes, query by query."""
        for visit in progress(self.visits, "queries"):
            self.check()
            image, label = next(self.loaded)
            query = self.model.encode_query(image[None].to(self.device))
            remaining = iter(visit.episodes)
            while batch := list(islice(remaining, self.batch)):
                supports = self._supports(batch)
                repeated = repeat_encoding(query, len(batch))
                prediction = self.model.decode(repeated, supports, tuple(image.shape[-2:]))
                for index, planned in enumerate(batch):
                    yield planned, _single(prediction, index), label

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
            return self.model.encode_auxiliary(loaded[None].to(self.device))
        tensors = (*loaded, torch.tensor(key[1]))
        inputs = [tensor[None].to(self.device) for tensor in tensors]
        return self.model.encode_support(*inputs)

    def _load(self, key: Support) -> Callable[[], Any]:
        name, class_id = key
        if class_id is None:
            return partial(self.episodes.load_auxiliary, name)
        return partial(self.episodes.load_support, name, class_id)

    def _loads(self) -> Iterator[Callable[[], Any]]:
        """Yield functions that read the images, in the order in which ``predictions`` needs them."""
        seen: set[Support] = set()
        for visit in self.visits:
            yield partial(self.episodes.load_query, visit.query)
            for key in visit.images():
                if key not in seen:
                    seen.add(key)
                    yield self._load(key)


def _batch_on(device: torch.device) -> int:
    """Return the batch size of decoding: one episode on a CPU, where larger batches round differently."""
    return 1 if device.type == "cpu" else 8


def _single(prediction: Prediction, index: int) -> Prediction:
    """Return one query's part of a prediction as a batch of one."""
    chosen = slice(index, index + 1)
    parts = {name: part[chosen] for name, part in prediction.parts.items()}
    return Prediction(prediction.logits[chosen], parts)
