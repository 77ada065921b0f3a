"""Evaluation that encodes every image once.

The episodes of a run are known beforehand, and an encoding depends on one image (and class) only. So the
episodes are taken query by query: a query is encoded, all its episodes are decoded, and its encoding is
dropped; the encoding of a (support, class) is kept until its last use, as far as memory goes. The counts are
integers, so the order changes no digit: on a CPU they equal those of ``evaluate_one_by_one``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import EpisodeSpec, Manifest
from fewseg.dataset.loading.auxiliary import Names
from fewseg.dataset.loading.few_shot import EvaluationImages
from fewseg.engine.evaluation.cache import GIB, EncodingCache
from fewseg.engine.evaluation.hooks import Check, Observe, nothing
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.evaluation.prefetch import prefetch
from fewseg.engine.evaluation.scores import MakeScores, Scores, scored_label
from fewseg.model.contract import Encoding, Prediction
from fewseg.model.encoding import group_encoding, repeat_encoding, stack_encodings
from fewseg.model.fewshot import FewShotModel
from fewseg.util import distributed
from fewseg.util.progress import progress

Support = tuple[str, int | None]
"""Name of an image, class that it is shown for; None for an auxiliary image, shown without a mask."""


class Task(NamedTuple):
    """An episode: number of its manifest, number in it, its images, and those of its auxiliary sets."""

    seed: int
    number: int
    spec: EpisodeSpec
    auxiliary: Names = ()


@dataclass(frozen=True)
class Visit:
    """A query and all episodes that ask for it."""

    query: str
    episodes: tuple[Task, ...]

    def supports(self) -> Iterator[Support]:
        """Yield the supports of all episodes, each followed by its auxiliary sets, in order of use."""
        for task in self.episodes:
            yield from supports_of(task.spec)
            yield from auxiliary_of(task)


@dataclass
class Work:
    """What an evaluation did, for benchmarks."""

    queries: int = 0
    supports: int = 0
    episodes: int = 0
    encoding_seconds: float = 0.0
    decoding_seconds: float = 0.0


def evaluate(
    model: FewShotModel,
    images: EvaluationImages,
    fold: Fold,
    manifests: Sequence[Manifest],
    *,
    device: torch.device | str = "cpu",
    cache_gib: float = 4.0,
    precision: AbstractContextManager[Any] | None = None,
    check: Check = nothing,
    observe: Observe = nothing,
    work: Work | None = None,
    scores_of: MakeScores = Scores,
) -> list[Scores]:
    """Return the scores of every manifest.

    Args:
        model: on ``device``; put into evaluation mode.
        images: of the episodes.
        fold: its classes and protocol.
        manifests: the episodes, one manifest per seed; shared among the processes.
        device: where the network runs.
        cache_gib: memory for the encodings of supports that are needed again.
        precision: autocast to run in; full precision by default.
        check: see ``engine.evaluation.hooks``.
        observe: likewise; called in the process that decodes the episode.
        work: filled with counts and times.
        scores_of: what counts the predictions.
    """
    if model.meta.inputs.batch_dependent:
        return evaluate_one_by_one(
            model,
            images,
            fold,
            manifests,
            device=device,
            precision=precision,
            check=check,
            observe=observe,
            scores_of=scores_of,
        )
    model.eval()
    scores = [scores_of(fold, manifest) for manifest in manifests]
    visits = _own_share(plan_visits(manifests, images))
    runner = _Runner(
        model, images, fold, visits, torch.device(device), cache_gib * GIB, work or Work(), check
    )
    with torch.inference_mode(), precision or nullcontext():
        for visit in progress(visits, "queries"):
            check()
            runner.visit(visit, scores, observe)
    for score in scores:
        score.sum_over_processes()
    return scores


def plan_visits(manifests: Sequence[Manifest], images: EvaluationImages | None = None) -> list[Visit]:
    """Gather the episodes of all manifests by query; queries that share a class follow one another.

    Args:
        manifests: the episodes.
        images: which may add auxiliary sets.
    """
    gathered: dict[str, list[Task]] = {}
    for seed, manifest in enumerate(manifests):
        for number, spec in enumerate(manifest):
            auxiliary = () if images is None else images.draw_auxiliary(manifest, number)
            gathered.setdefault(spec.query, []).append(Task(seed, number, spec, auxiliary))
    visits = [Visit(query, tuple(episodes)) for query, episodes in gathered.items()]
    return sorted(visits, key=_main_class)


def supports_of(spec: EpisodeSpec) -> list[Support]:
    """Return the supports of an episode, way by way."""
    return [(name, c) for c, names in zip(spec.class_ids, spec.supports, strict=True) for name in names]


def auxiliary_of(task: Task) -> list[Support]:
    """Return the auxiliary images of an episode, way by way."""
    return [(name, None) for names in task.auxiliary for name in names]


def _main_class(visit: Visit) -> int:
    return Counter(task.spec.class_ids[0] for task in visit.episodes).most_common(1)[0][0]


def _own_share(visits: list[Visit]) -> list[Visit]:
    """Return this process's run of visits, so that it meets few classes."""
    rank, processes = distributed.rank(), distributed.world_size()
    return visits[rank * len(visits) // processes : (rank + 1) * len(visits) // processes]


class _Runner:
    """Encodes and decodes visit by visit."""

    def __init__(
        self,
        model: FewShotModel,
        images: EvaluationImages,
        fold: Fold,
        visits: Sequence[Visit],
        device: torch.device,
        budget: float,
        work: Work,
        check: Check,
    ) -> None:
        self.model, self.images, self.fold, self.device, self.work = model, images, fold, device, work
        self.batch = _batch_on(device)
        self.cache = EncodingCache((key for visit in visits for key in visit.supports()), budget)
        self.seen: set[Support] = set()
        self.loaded = prefetch(self._loads(visits), check=check)

    def visit(self, visit: Visit, scores: Sequence[Scores], observe: Observe) -> None:
        """Decode all episodes of a query and count them."""
        image, label, _ = next(self.loaded)
        label = scored_label(label, self.fold)
        query = self._timed_encoding(partial(self.model.encode_query, image[None].to(self.device)))
        size = tuple(image.shape[-2:])
        self.work.queries += 1
        base, remaining = None, iter(visit.episodes)
        while episodes := list(islice(remaining, self.batch)):
            supports = self._supports(episodes)
            started = time.perf_counter()
            prediction = self.model.decode(repeat_encoding(query, len(episodes)), supports, size)
            for index, (seed, number, *_) in enumerate(episodes):
                single = _single(prediction, index)
                base = scores[seed].count_base(single, label) if base is None else base
                scores[seed].add(number, single, label)
                scores[seed].add_base(base)
                observe(seed, number, single)
            self.work.decoding_seconds += time.perf_counter() - started
            self.work.episodes += len(episodes)

    def _supports(self, tasks: Sequence[Task]) -> Encoding:
        """Return the encodings of all supports, and of auxiliary images; first axes episodes, ways."""
        supports: list[Encoding] = []
        auxiliary: list[Encoding] = []
        for task in tasks:
            supports += map(self._encoding, supports_of(task.spec))
            auxiliary += map(self._encoding, auxiliary_of(task))
        self.work.supports = self.cache.made
        first = tasks[0]
        axes = len(tasks), len(first.spec.class_ids)
        encoding = group_encoding(stack_encodings(supports), *axes, len(first.spec.supports[0]))
        if auxiliary:
            encoding |= group_encoding(stack_encodings(auxiliary), *axes, len(first.auxiliary[0]))
        return encoding

    def _encoding(self, key: Support) -> Encoding:
        return self.cache.get(key, partial(self._encode_support, key))

    def _encode_support(self, key: Support) -> Encoding:
        # What is used for the first time was read ahead; what had to leave the cache is read again.
        loaded = self._load(key)() if key in self.seen else next(self.loaded)
        self.seen.add(key)
        if key[1] is None:
            return self._timed_encoding(partial(self.model.encode_auxiliary, loaded[None].to(self.device)))
        image, mask = loaded
        arguments = (
            image[None].to(self.device),
            mask[None].to(self.device),
            torch.tensor([key[1]]).to(self.device),
        )
        return self._timed_encoding(partial(self.model.encode_support, *arguments))

    def _load(self, key: Support) -> Callable[[], Any]:
        name, class_id = key
        if class_id is None:
            return partial(self.images.load_auxiliary, name)
        return partial(self.images.load_support, name, class_id)

    def _timed_encoding(self, encode: Callable[[], Encoding]) -> Encoding:
        started = time.perf_counter()
        encoding = encode()
        self.work.encoding_seconds += time.perf_counter() - started
        return encoding

    def _loads(self, visits: Sequence[Visit]) -> Iterator[Callable[[], Any]]:
        """Yield what has to be read, in the order in which ``visit`` asks for it."""
        known: set[Support] = set()
        for visit in visits:
            yield partial(self.images.load_query, visit.query)
            for key in visit.supports():
                if key not in known:
                    known.add(key)
                    yield self._load(key)


def _batch_on(device: torch.device) -> int:
    """Return how many episodes are decoded together: one on a CPU, where more round differently."""
    return 1 if device.type == "cpu" else 8


def _single(prediction: Prediction, index: int) -> Prediction:
    """Return one query's part of a prediction as a batch of one."""
    chosen = slice(index, index + 1)
    parts = {name: part[chosen] for name, part in prediction.parts.items()}
    return Prediction(prediction.logits[chosen], parts)
