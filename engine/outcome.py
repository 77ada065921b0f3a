"""From scores to what is written: a result, and the counts of its episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from dataset.episodes import Manifest
from dataset.fold import Fold
from engine.protocols import Difference, test_difference, training_difference
from engine.scores import Scores
from util.config import Config
from util.episode_counts import EpisodeCounts
from util.results import Result, SeedResult


def result_of(
    config: Config, fold: Fold, manifests: Sequence[Manifest], scores: Sequence[Scores], **given: Any
) -> Result:
    """Return the result of a test run.

    Args:
        config: of the run.
        fold: that was tested.
        manifests, scores: of every seed.
        given: entries of the result that follow from none of these, or differ from what does.
    """
    data = config.Data
    departures = test_difference(config, fold.protocol)
    foreign = sorted({manifest.protocol for manifest in manifests} - {fold.protocol.name})
    if foreign:
        departures["query_order"] = (fold.protocol.query_order, f"episodes of {', '.join(foreign)}")
    common = {
        "backbone": config.Method.backbone,
        "data_set": data.data_set,
        "fold": data.split,
        "shot": data.shot,
        "ways": data.ways,
        "protocol": fold.protocol.name,
        "protocol_difference": _plain(departures),
        "trained_under": data.protocol,
        "training_difference": _plain(training_difference(config, fold.protocol)),
        "novel_in_train": fold.protocol.novel_in_train,
        "absent_classes": fold.protocol.absent_classes,
        "annotation": data.ann_type,
        "episodes": len(manifests[0]),
        "config": config.as_dict(),
    }
    seeds = tuple(
        SeedResult(
            seed=manifest.seed,
            episode_hash=manifest.hash,
            metrics=score.metrics(),
            class_iou=score.class_iou(),
        )
        for manifest, score in zip(manifests, scores, strict=True)
    )
    return Result(**{**common, "seeds": seeds, **given})


def counts_of(fold: Fold, scores: Sequence[Scores]) -> EpisodeCounts | None:
    """Return the counts of all episodes; None where the seeds have unequally many."""
    if len({len(score.manifest) for score in scores}) > 1:
        return None
    with_meta = all(score.counted("meta") for score in scores)
    meta = [score.episodes["meta"].numpy() for score in scores] if with_meta else []
    return EpisodeCounts(
        hashes=np.array([score.manifest.hash for score in scores]),
        rows=np.array([[score.rows(i) for i in range(len(score.manifest))] for score in scores], np.int16),
        counts=np.array([score.episodes["final"].numpy() for score in scores], np.int32),
        meta=np.array(meta, np.int32),
        classes=scores[0].meters["final"].counts.shape[1],
        first_novel=scores[0].first_novel,
        left_out=fold.protocol.leaves_absent_out,
    )


def _plain(difference: Difference) -> dict[str, Any]:
    """Return the difference as JSON has it, with lists for tuples."""
    return json.loads(json.dumps(difference))
