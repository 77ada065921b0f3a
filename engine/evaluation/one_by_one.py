"""The plain evaluation loop, in which every image of every episode passes through the whole network.

Published test scripts work in this way. It is the reference for the fast evaluation, and evaluates learners
whose encodings depend on the other images of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.engine.evaluation.scores import MakeScores, Scores
from fewseg.engine.evaluation.tally import Observe, Tally, Task
from fewseg.engine.setup.build import Adapter
from fewseg.engine.setup.interrupt import Check, nothing
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.encoding import group_encoding, stack_encodings
from fewseg.model.fewshot import FewShotModel
from fewseg.util import distributed
from fewseg.util.progress import progress


def evaluate_one_by_one(
    model: FewShotModel,
    episodes: EpisodeSet,
    *,
    check: Check = nothing,
    observe: Observe = nothing,
    scores_of: MakeScores = Scores,
    adapter: Adapter | None = None,
) -> list[Scores]:
    """Return the scores of every manifest.

    The arguments are those of ``evaluate`` and ``count_one_by_one``.
    """
    task = Task(model, Tally(episodes, scores_of, observe))
    count_one_by_one(task, check, adapter)
    return task.tally.total()


def count_one_by_one(task: Task, check: Check = nothing, adapter: Adapter | None = None) -> None:
    """Count the predictions for this process's share of the pending episodes.

    If there is an ``adapter``, it segments instead of the model, always in full precision.
    """
    model, tally = task
    model.eval()
    segment = adapter or partial(predict, model)
    with_truth = adapter is not None and adapter.oracle
    pending = tally.pending([planned] for planned in tally.episodes)
    with tally.keeping():
        for (planned,) in progress(pending[distributed.rank() :: distributed.world_size()], "episodes"):
            check()
            episode, label = tally.episodes.load(planned, with_truth=with_truth)
            tally.seed(planned, model.device)
            tally.add([planned], segment(episode.to(model.device)), [label])


@torch.inference_mode()
def predict(model: FewShotModel, episode: Episode) -> Prediction:
    """Segment one episode, encoding its images one by one.

    ``model(episode)`` does the same, but with K supports in one batch, which rounds differently on a CPU.
    Learners that depend on their batch get the whole episode.
    """
    if model.batch_dependent:
        return model(episode)
    query = model.encode_query(episode.query)
    classes = episode.class_id.flatten().repeat_interleave(episode.shots)
    images = zip(episode.support.flatten(0, 2), episode.support_mask.flatten(0, 2), classes, strict=True)
    supports = [model.encode_support(*(tensor[None] for tensor in image)) for image in images]
    supports = [support | model.comparisons(query, support) for support in supports]
    auxiliary: list[Encoding] = []
    if episode.auxiliary is not None:
        auxiliary = [model.encode_auxiliary(image[None]) for image in episode.auxiliary.flatten(0, 2)]
    encoded = grouped(supports, auxiliary, 1, episode.ways)
    return model.decode(query, encoded, episode.size)


def grouped(
    supports: Sequence[Encoding], auxiliary: Sequence[Encoding], episodes: int, ways: int
) -> Encoding:
    """Join the encodings of supports and of auxiliary images; the first axes are episodes, ways, images."""
    joined: Encoding = {}
    for encodings in (supports, auxiliary):
        if encodings:
            stacked = stack_encodings(encodings)
            images = len(next(iter(stacked.values()))) // (episodes * ways)
            joined |= group_encoding(stacked, episodes, ways, images)
    return joined
