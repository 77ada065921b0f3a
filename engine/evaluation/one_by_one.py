"""The plain evaluation loop: every image of every episode through the whole network.

It is what published test scripts do, and the reference that the fast evaluation has to equal; learners whose
encodings depend on the other images of a batch are evaluated by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import EpisodeSpec, Manifest
from fewseg.dataset.loading.auxiliary import Names
from fewseg.dataset.loading.few_shot import EvaluationImages
from fewseg.engine.evaluation.adapted import Adapter, with_truth
from fewseg.engine.evaluation.hooks import Check, Observe, nothing
from fewseg.engine.evaluation.scores import MakeScores, Scores, scored_label
from fewseg.model.contract import Episode, Prediction
from fewseg.model.encoding import group_encoding, stack_encodings
from fewseg.model.fewshot import FewShotModel
from fewseg.util import distributed
from fewseg.util.progress import progress


def evaluate_one_by_one(
    model: FewShotModel,
    images: EvaluationImages,
    fold: Fold,
    manifests: Sequence[Manifest],
    *,
    device: torch.device | str = "cpu",
    precision: AbstractContextManager[Any] | None = None,
    check: Check = nothing,
    observe: Observe = nothing,
    scores_of: MakeScores = Scores,
    adapter: Adapter | None = None,
) -> list[Scores]:
    """Return the scores of every manifest.

    The arguments are those of ``engine.evaluate.evaluate``; an ``adapter`` segments in the
    model's place, always in full precision.
    """
    model.eval()
    scores = [scores_of(fold, manifest) for manifest in manifests]
    numbered = [(seed, number) for seed, manifest in enumerate(manifests) for number in range(len(manifest))]
    own = numbered[distributed.rank() :: distributed.world_size()]
    for seed, number in progress(own, "episodes"):
        check()
        spec = manifests[seed][number]
        episode, label = load_episode(images, spec, images.draw_auxiliary(manifests[seed], number))
        label = scored_label(label, fold)
        if adapter is None:
            with torch.inference_mode(), precision or nullcontext():
                prediction = predict(model, episode.to(device))
        else:
            seen = with_truth(episode, images, spec.query) if adapter.oracle else episode
            prediction = adapter(seen.to(device))
        scores[seed].add(number, prediction, label)
        scores[seed].add_base(scores[seed].count_base(prediction, label))
        observe(seed, number, prediction)
    for score in scores:
        score.sum_over_processes()
    return scores


def predict(model: FewShotModel, episode: Episode) -> Prediction:
    """Segment one episode, its images going through the backbone singly.

    ``model(episode)`` does the same, but with K supports in one batch, which rounds differently on a CPU.
    Only learners that depend on their batch are given it whole.
    """
    if model.meta.inputs.batch_dependent:
        return model(episode)
    query = model.encode_query(episode.query)
    classes = episode.class_id.flatten().repeat_interleave(episode.shots)
    images = zip(episode.support.flatten(0, 2), episode.support_mask.flatten(0, 2), classes, strict=True)
    supports = [model.encode_support(*(tensor[None] for tensor in image)) for image in images]
    grouped = group_encoding(stack_encodings(supports), 1, episode.ways, episode.shots)
    if episode.auxiliary is not None:
        auxiliary = [model.encode_auxiliary(image[None]) for image in episode.auxiliary.flatten(0, 2)]
        grouped |= group_encoding(stack_encodings(auxiliary), *episode.auxiliary.shape[:3])
    return model.decode(query, grouped, episode.size)


def load_episode(
    images: EvaluationImages, spec: EpisodeSpec, auxiliary: Names = ()
) -> tuple[Episode, np.ndarray]:
    """Read the images of one episode, with those of its auxiliary sets.

    Returns:
        A batch of one, and the query's label of dataset ids, uint8 [H,W].
    """
    query, label, padding = images.load_query(spec.query)
    supports, masks = zip(*_supports(images, spec), strict=True)
    ways = len(spec.class_ids)
    further = [images.load_auxiliary(name) for names in auxiliary for name in names]
    episode = Episode(
        query=query[None],
        support=torch.stack(supports).unflatten(0, (1, ways, -1)),
        support_mask=torch.stack(masks).unflatten(0, (1, ways, -1)),
        class_id=torch.tensor([spec.class_ids]),
        query_padding=padding[None],
        auxiliary=torch.stack(further).unflatten(0, (1, ways, -1)) if further else None,
    )
    return episode, label


def _supports(images: EvaluationImages, spec: EpisodeSpec) -> Iterator[tuple[Tensor, Tensor]]:
    for class_id, names in zip(spec.class_ids, spec.supports, strict=True):
        for name in names:
            yield images.load_support(name, class_id)
