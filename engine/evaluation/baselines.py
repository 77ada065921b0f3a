"""Baselines that need no training, with which the scores of a trained model are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from fewseg.dataset.episodes.sampling import EpisodeSpec
from fewseg.dataset.labels import BACKGROUND, VOID
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.transform import class_table, relabel
from fewseg.engine.evaluation.outcome import result_of
from fewseg.engine.evaluation.scores import Scores
from fewseg.engine.setup.interrupt import Check, nothing
from fewseg.util.config import Config
from fewseg.util.metrics import intersection_union_target
from fewseg.util.progress import progress
from fewseg.util.results.identity import departures_in_words
from fewseg.util.results.result import Result

BASELINES = ("support mask copied", "every object")


def score_baselines(config: Config, episodes: EpisodeSet, check: Check = nothing) -> Iterator[Result]:
    """Score the baselines that need no training, at the original size of the labels.

    Args:
        config: config of the test.
        episodes: episodes of the test.
        check: called regularly; may raise to stop.
    """

    def copied(spec: EpisodeSpec, label: np.ndarray) -> np.ndarray:
        support = episodes.store.named(spec.supports[0][0])[1]
        return copied_mask(relabel(support, class_table(spec.class_ids[:1])), label.shape)

    def objects(spec: EpisodeSpec, label: np.ndarray) -> np.ndarray:
        return every_object(known_objects(episodes.store, spec.query, label))

    for name, predict in zip(BASELINES, (copied, objects), strict=True):
        started = time.perf_counter()
        scores = _score(episodes, predict, name, check)
        seconds = time.perf_counter() - started
        own = {"method": name, "backbone": "-", "seconds": seconds, "key": None}
        own |= {"trained_on": None, "training_data": {}}
        result = result_of(config, episodes, scores, **own)
        # Only the config's changes to the protocol affect a baseline.
        yield result.model_copy(update={"variant": departures_in_words(result) or None})


def copied_mask(support_mask: NDArray[np.uint8], query_shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Predict the support's mask for the query, a baseline that uses only position and size of the object.

    Args:
        support_mask: [H,W] of 0, 1 and 255 (void, which counts as background).
        query_shape: height and width of the query, to which the mask is resized.

    Returns:
        A prediction of 0 and 1 in the query's shape.
    """
    height, width = support_mask.shape
    # Nearest neighbour by the centres of pixels, in integer arithmetic.
    rows = (2 * np.arange(query_shape[0]) + 1) * height // (2 * query_shape[0])
    columns = (2 * np.arange(query_shape[1]) + 1) * width // (2 * query_shape[1])
    return (support_mask[rows[:, None], columns] == 1).astype(np.uint8)


def known_objects(store: ImageStore, name: str, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the numbers of all objects of an image, if its mask shows one class only and they are known.

    Args:
        store: reads the images.
        name: name of the image.
        label: [H,W] its dataset ids, which are returned otherwise.
    """
    objects = store.objects(name) if store.source.class_ids is not None else None
    return label if objects is None else objects


def every_object(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Predict every labelled object of the query, like a perfect segmentation that ignores classes.

    Args:
        label: [H,W] dataset ids, or numbers of objects, of the query, 0 background, 255 void.

    Returns:
        A prediction of 0 and 1.
    """
    return ((label != BACKGROUND) & (label != VOID)).astype(np.uint8)


def _score(
    episodes: EpisodeSet,
    predict: Callable[[EpisodeSpec, np.ndarray], np.ndarray],
    name: str,
    check: Check,
) -> list[Scores]:
    scores = [Scores(episodes.fold, manifest) for manifest in episodes.manifests]
    for score in scores:
        for index, spec in enumerate(progress(score.manifest, name)):
            check()
            label = episodes.store.named(spec.query)[1]
            target = relabel(label, class_table(spec.class_ids[:1]))
            prediction, truth = (torch.from_numpy(array) for array in (predict(spec, label), target))
            score.add_counts("final", index, intersection_union_target(prediction, truth, 2))
    return scores
