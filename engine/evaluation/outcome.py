"""Turn scores into what is written: a result, and the counts of its episodes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.engine.evaluation.scores import Scores
from fewseg.engine.setup.protocols import Difference, test_difference, training_difference
from fewseg.engine.setup.run_path import (
    name_suffix,
    result_key,
    shipped_adaptation,
    shipped_config,
    tested_root,
)
from fewseg.engine.setup.tested_data import as_tested, tested_annotation, trained_on, training_place
from fewseg.model.create import ADAPTERS
from fewseg.util.config import Config
from fewseg.util.config.differences import TRAINING
from fewseg.util.config.types import Effect
from fewseg.util.results.episode_counts import EpisodeCounts
from fewseg.util.results.result import Result, SeedResult

_TOLD_ELSEWHERE = (
    *("weight", "data", "data_opts", "test_protocol", "generalized"),
    *("test_ann_type", "episodes_file", "episodes", "seeds", "adapt"),
)
"""Keys of ``Test_Finetune`` that other entries of a result contain."""


def result_of(
    config: Config, episodes: EpisodeSet, scores: Sequence[Scores] | None = None, **given: Any
) -> Result:
    """Return the result of a test run; before the test it has no metrics.

    Args:
        config: config of the run.
        episodes: episodes of the test.
        scores: scores of every seed; None before the test.
        given: further entries of the result, which replace those that follow from the other arguments.
    """
    data, fold, manifests = config.Data, episodes.fold, episodes.manifests
    departures = test_difference(config, fold.protocol)
    foreign = sorted({manifest.protocol for manifest in manifests} - {fold.protocol.name})
    if foreign:
        departures["query_order"] = (fold.protocol.query_order, f"episodes of {', '.join(foreign)}")
    common = {
        "backbone": config.Method.backbone,
        "data_set": fold.data_set,
        "fold": fold.number,
        "shot": data.shot,
        "ways": data.ways,
        "protocol": fold.protocol.name,
        "protocol_difference": plain(departures),
        "trained_on": trained_on(config),
        "training_data": training_place(config),
        "trained_under": data.protocol,
        "training_difference": plain(training_difference(config, fold.protocol)),
        "novel_in_train": fold.protocol.novel_in_train,
        "absent_classes": fold.protocol.absent_classes,
        "annotation": tested_annotation(config),
        "variant": variant_of(config),
        "episodes": len(manifests[0]),
        "config": as_tested(config).as_dict(),
        "key": result_key(config),
    }
    measured: Sequence[Scores | None] = scores or [None] * len(manifests)
    seeds = tuple(
        SeedResult(
            seed=manifest.seed,
            episode_hash=manifest.hash,
            metrics=score.metrics() if score else {},
            class_iou=score.class_iou() if score else {},
            rounds=score.by_round() if score else (),
        )
        for manifest, score in zip(manifests, measured, strict=True)
    )
    return Result(**{**common, "seeds": seeds, **given})


def variant_of(config: Config) -> str | None:
    """Return the differences of a run from the shipped config that a result's other entries do not contain.

    The number of the fold is removed from paths, so that all folds of a method are the same variant.
    """
    data, usual = config.Data, shipped_config(config)

    def without_fold(path: str | None) -> str | None:
        return path and re.sub(rf"(split|fold)_?{data.split}(?!\d)", r"\1", path)

    plain = config.with_values(
        Data={
            "ways": usual.Data.ways,
            "ann_type": usual.Data.ann_type,
            "mined_labels": without_fold(data.mined_labels),
        },
        Train={"weight": without_fold(config.Train.weight)},
        Method={"base_weight": without_fold(config.Method.base_weight)},
        Test_Finetune={name: getattr(usual.Test_Finetune, name) for name in _TOLD_ELSEWHERE}
        | {"adapt_options": _unusual_adaptation(config)},
    )
    place = tested_root(config)
    parts = [f"on-{place}" if place else "", name_suffix(plain, (*TRAINING, Effect.TEST))]
    return "_".join(filter(None, parts)) or None


def _unusual_adaptation(config: Config) -> dict[str, Any]:
    """Return the options of the adaptation that differ from the shipped config's, or from the defaults."""
    test = config.Test_Finetune
    if test.adapt is None:
        return test.adapt_options
    defaults = {field.name: field.default for field in fields(ADAPTERS[test.adapt].Options)}
    usual = defaults | shipped_adaptation(config).Test_Finetune.adapt_options
    own = defaults | test.adapt_options
    return {
        name: _listed(value)
        for name, value in own.items()
        if name not in usual or _listed(value) != _listed(usual[name])
    }


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def counts_of(scores: Sequence[Scores]) -> EpisodeCounts | None:
    """Return the counts of all episodes; None where the seeds differ in their number of episodes."""
    if len({len(score.manifest) for score in scores}) > 1:
        return None
    with_meta = all(score.counted("meta") for score in scores)
    meta = [score.episodes["meta"].numpy() for score in scores] if with_meta else []
    return EpisodeCounts(
        hashes=np.array([score.manifest.hash for score in scores]),
        rows=np.array([[score.rows(i) for i in range(len(score.manifest))] for score in scores], np.int16),
        counts=np.array([score.episodes[score.part].numpy() for score in scores], np.int32),
        meta=np.array(meta, np.int32),
        classes=scores[0].classes[scores[0].part],
        first_novel=scores[0].first_novel,
        left_out=scores[0].fold.protocol.leaves_absent_out,
    )


def plain(difference: Difference) -> dict[str, Any]:
    """Return the difference as JSON represents it, with lists instead of tuples."""
    return json.loads(json.dumps(difference))
