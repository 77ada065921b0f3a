"""Evaluation that encodes every image once.

The episodes of a run are known beforehand, and an encoding depends only on one image (and class). So the
episodes are processed query by query: a query is encoded, all its episodes are decoded, and its encoding is
dropped; the encoding of a (support, class) is cached until its last use, as far as memory allows. The counts
are integers, so they do not depend on the order: on a CPU they equal those of ``evaluate_one_by_one``.

Tests of one checkpoint with several numbers of supports share the encodings: each has its own model, and one
of the models encodes for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor

from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.engine.evaluation.cache import GIB
from fewseg.engine.evaluation.one_by_one import count_one_by_one
from fewseg.engine.evaluation.runner import Runner
from fewseg.engine.evaluation.scores import MakeScores, Scores
from fewseg.engine.evaluation.tally import Observe, Tally, Task
from fewseg.engine.evaluation.visits import own_share, plan_visits
from fewseg.engine.setup.interrupt import Check, nothing
from fewseg.engine.setup.loader import worker_deaths
from fewseg.model.contract import Encoding
from fewseg.model.fewshot import FewShotModel


def evaluate(
    model: FewShotModel,
    episodes: EpisodeSet,
    *,
    cache_gib: float = 4.0,
    precision: AbstractContextManager[Any] | None = None,
    check: Check = nothing,
    workers: int = 0,
    observe: Observe = nothing,
    scores_of: MakeScores = Scores,
) -> list[Scores]:
    """Return the scores of every manifest.

    Args:
        model: the model on its device; it is set to evaluation mode.
        episodes: the episodes, which are divided among the processes.
        cache_gib, precision, check, workers: see ``evaluate_together``.
        observe: called with every prediction, in the process that decodes the episode.
        scores_of: creates the scores that count the predictions of a manifest.
    """
    task = Task(model, Tally(episodes, scores_of, observe))
    evaluate_together([task], cache_gib=cache_gib, precision=precision, check=check, workers=workers)
    return task.tally.total()


def evaluate_together(
    tasks: Sequence[Task],
    *,
    cache_gib: float = 4.0,
    precision: AbstractContextManager[Any] | None = None,
    check: Check = nothing,
    workers: int = 0,
) -> None:
    """Count the predictions for the pending episodes of several tasks, of which this process has a share.

    Args:
        tasks: their models encode equally (see ``encode_equally``), and their episodes are of one fold.
        cache_gib: memory in GiB for the encodings of supports that are needed again.
        precision: autocast context to run in; full precision by default.
        check: called regularly; may raise to stop the evaluation.
        workers: processes that read images where the model is on a GPU; a thread reads them for a CPU.
    """
    with torch.inference_mode(), precision or nullcontext(), ExitStack() as kept:
        if tasks[0].model.batch_dependent:
            for task in tasks:
                count_one_by_one(task, check)
            return
        visits = own_share(plan_visits(tasks))
        for task in tasks:
            kept.enter_context(task.tally.keeping(len(tasks)))
        kept.enter_context(worker_deaths())
        Runner(tasks, visits, cache_gib * GIB, check, workers).run()


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
        supports = [_first_support(model, class_id, *support) for model in models]
    return all(_equal(encoding, queries[0]) for encoding in queries) and all(
        _equal(encoding, supports[0]) for encoding in supports
    )


def _first_support(model: FewShotModel, class_id: int, image: Tensor, mask: Tensor) -> Encoding:
    image, mask = (tensor[None].to(model.device) for tensor in (image, mask))
    return model.encode_support(image, mask, torch.tensor([class_id]))


def _equal(one: Encoding, other: Encoding) -> bool:
    """Return whether two encodings have the same entries, bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
