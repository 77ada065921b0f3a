"""One test run: a model on a fold with a number of shots, every seed, beside the baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.episodes import EpisodeSpec, Manifest
from dataset.fewshot import EvaluationImages
from dataset.fold import Fold
from dataset.transform import class_table, relabel
from engine.baselines import copied_mask, every_object
from engine.build import build_network
from engine.data import evaluation_images, fold_of, test_manifests
from engine.evaluate import evaluate
from engine.panels import Panels
from engine.scores import Scores
from engine.snapshot import BEST, LAST
from engine.weights import describe, fill, load_trained
from util.checkpoint import file_hash
from util.config import Config
from util.distributed import gather
from util.log import progress
from util.metrics import intersection_union_target
from util.results import Result, SeedResult

BASELINES = ("support mask copied", "every object")


@dataclass(frozen=True)
class Measurement:
    """What a test run gives.

    Attributes:
        result: of the model.
        baselines: what needs no learning, on the same episodes.
        pictures: name -> panel of an episode, RGB uint8 [H,W,3].
    """

    result: Result
    baselines: tuple[Result, ...]
    pictures: dict[str, np.ndarray]


def measure(config: Config, device: torch.device) -> Measurement:
    """Test the model that ``config`` names on its fold with its number of shots."""
    fold = fold_of(config)
    path = weight_path(config, fold)
    model = build_network(config, fold.split)
    load_trained(model, path, describe(config, fold.split))
    model.to(device, memory_format=torch.channels_last)  # convolutions run faster so
    images, manifests = evaluation_images(config, fold), test_manifests(config, fold)
    panels = Panels(images, manifests, config.Test_Finetune.panels, fold.split.names)
    started = time.perf_counter()
    scores = evaluate(
        model,
        images,
        fold,
        manifests,
        device=device,
        cache_gib=config.Test_Finetune.cache_gib,
        precision=precision_of(config, device),
        observe=panels,
    )
    seconds = time.perf_counter() - started
    trained = {"checkpoint": str(path), "checkpoint_hash": file_hash(path), "seconds": seconds}
    result = _result(config, fold, manifests, scores, method=config.Method.arch, **trained)
    pictures = {name: picture for part in gather(panels.pictures) for name, picture in part.items()}
    return Measurement(result, tuple(_baselines(config, fold, images, manifests)), pictures)


def weight_path(config: Config, fold: Fold) -> Path:
    """Return the checkpoint to test: as configured, or the one that the run's protocol selects."""
    if config.Test_Finetune.weight is not None:
        return fill(config.Test_Finetune.weight, config)
    return config.run_folder / (LAST if fold.protocol.selection == "last" else BEST)


def precision_of(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """Return the autocast that the config asks for."""
    name = config.Test_Finetune.precision
    return nullcontext() if name == "float32" else torch.autocast(device.type, getattr(torch, name))


def _baselines(
    config: Config, fold: Fold, images: EvaluationImages, manifests: Sequence[Manifest]
) -> Iterator[Result]:
    """Score the predictions that need no learning, at the labels' original size."""

    def copied(spec: EpisodeSpec, label: np.ndarray) -> np.ndarray:
        support = images.store.named(spec.supports[0][0])[1]
        return copied_mask(relabel(support, class_table(spec.class_ids[:1])), label.shape)

    def objects(spec: EpisodeSpec, label: np.ndarray) -> np.ndarray:
        return every_object(label)

    for name, predict in zip(BASELINES, (copied, objects), strict=True):
        started = time.perf_counter()
        scores = [_score(fold, images, manifest, predict, name) for manifest in manifests]
        seconds = time.perf_counter() - started
        yield _result(config, fold, manifests, scores, method=name, backbone="-", seconds=seconds)


def _score(
    fold: Fold,
    images: EvaluationImages,
    manifest: Manifest,
    predict: Callable[[EpisodeSpec, np.ndarray], np.ndarray],
    name: str,
) -> Scores:
    scores = Scores(fold)
    for spec in progress(manifest, name):
        label = images.store.named(spec.query)[1]
        target = relabel(label, class_table(spec.class_ids[:1]))
        prediction, truth = (torch.from_numpy(array) for array in (predict(spec, label), target))
        rows = (0, 1 + fold.split.novel.index(spec.class_ids[0]))
        scores.meters["final"].add(intersection_union_target(prediction, truth, 2), rows)
    return scores


def _result(
    config: Config, fold: Fold, manifests: Sequence[Manifest], scores: Sequence[Scores], **given: Any
) -> Result:
    data = config.Data
    common = {
        "backbone": config.Method.backbone,
        "data_set": data.data_set,
        "fold": data.split,
        "shot": data.shot,
        "ways": data.ways,
        "protocol": fold.protocol.name,
        "novel_in_train": fold.protocol.novel_in_train,
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
