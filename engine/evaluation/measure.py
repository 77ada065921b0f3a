"""One test run: a model on a fold with a number of shots, every seed, beside the baselines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.loading.few_shot import EvaluationImages
from fewseg.engine.evaluation.adapted import Adapter, adapter_of
from fewseg.engine.evaluation.baselines import score_baselines
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.evaluation.outcome import counts_of, result_of
from fewseg.engine.evaluation.scores import Scores
from fewseg.engine.reports.panels import Panels
from fewseg.engine.setup.build import build_few_shot
from fewseg.engine.setup.data import evaluation_images, test_fold_of, test_manifests
from fewseg.engine.setup.lookup import find_trained
from fewseg.engine.setup.weights import describe, fill, load_trained
from fewseg.engine.training.snapshot import BEST, LAST
from fewseg.model.fewshot import FewShotModel
from fewseg.util.checkpoint import file_hash
from fewseg.util.config import Config
from fewseg.util.distributed import gather
from fewseg.util.results.episode_counts import EpisodeCounts
from fewseg.util.results.result import Result
from fewseg.util.seed import set_seed

UNTRAINED = "untrained"
"""Begins the name of a method whose network has random weights."""


@dataclass(frozen=True)
class Measurement:
    """What a test run gives.

    Attributes:
        result: of the model.
        baselines: what needs no training, on the same episodes.
        pictures: name -> panel of an episode, RGB uint8 [H,W,3].
        counts: of every episode.
    """

    result: Result
    baselines: tuple[Result, ...]
    pictures: dict[str, np.ndarray]
    counts: EpisodeCounts | None


@dataclass(frozen=True)
class Run:
    """A test run before its first episode.

    Attributes:
        fold: under the protocol of the test.
        model: with its trained weights, on the CPU at first.
        path, checkpoint_hash: of the weights.
        config: of the test, with the method's options as the weights fit them.
        images, manifests: of the episodes.
        started: when, on the clock of ``time.perf_counter``.
    """

    fold: Fold
    model: FewShotModel
    path: Path
    checkpoint_hash: str
    config: Config
    images: EvaluationImages
    manifests: list[Manifest]
    started: float

    def result(self, scores: Sequence[Scores] | None, **given: Any) -> Result:
        """Return the result of the trained model, without figures where there are no scores yet."""
        trained = {
            "checkpoint": str(self.path),
            "checkpoint_hash": self.checkpoint_hash,
            "seconds": time.perf_counter() - self.started,
        }
        return result_of(self.config, self.fold, self.manifests, scores, **{**trained, **given})

    def to(self, device: torch.device) -> None:
        """Move the model to where it runs."""
        self.model.to(device).to(memory_format=torch.channels_last)  # convolutions run faster so

    def evaluate(
        self, model: FewShotModel, config: Config, *, device: torch.device, **more: Any
    ) -> list[Scores]:
        """Return the scores of ``model`` on the episodes, within the memory and in the precision configured.

        Args:
            model: on ``device``.
            config: of the test.
            device: where to run.
            more: see ``engine.evaluate.evaluate``.
        """
        return evaluate(
            model,
            self.images,
            self.fold,
            self.manifests,
            device=device,
            cache_gib=config.Test_Finetune.cache_gib,
            precision=precision_of(config, device),
            **more,
        )


def open_run(config: Config) -> Run:
    """Open the fold, the trained model and the episodes that ``config`` names."""
    fold = test_fold_of(config)
    path = weight_path(config, fold)
    model = build_few_shot(config, fold.split)
    checkpoint_hash = file_hash(path)
    options = {**config.Method.options, **load_trained(model, path, describe(config, fold.split))}
    config = config.model_copy(update={"Method": config.Method.model_copy(update={"options": options})})
    images, manifests = evaluation_images(config, fold), test_manifests(config, fold)
    return Run(fold, model, path, checkpoint_hash, config, images, manifests, time.perf_counter())


def expected(config: Config, run: Run) -> tuple[Result, Result | None]:
    """Return the results of a test run that is still to be done, without figures.

    The first one is the model's, the other one the untrained network's, where that is asked for.
    """
    result = run.result(None, **_named(config, adapter_of(config, run.model)))
    return result, _untrained(config, run, None, 0.0) if config.Test_Finetune.untrained else None


def measure(config: Config, device: torch.device) -> Measurement:
    """Test the model that ``config`` names on its fold with its number of shots."""
    run = open_run(config)
    run.to(device)
    fold, images, manifests = run.fold, run.images, run.manifests
    panels = Panels(images, manifests, config.Test_Finetune.panels, fold.split.names)
    adapter = adapter_of(config, run.model)
    if adapter is not None:
        scores = evaluate_one_by_one(
            run.model, images, fold, manifests, adapter=adapter, device=device, observe=panels
        )
    else:
        scores = run.evaluate(run.model, config, device=device, observe=panels)
    result = run.result(scores, **_named(config, adapter))
    pictures = {name: picture for part in gather(panels.pictures) for name, picture in part.items()}
    baselines = [*score_baselines(config, fold, images, manifests)]
    if config.Test_Finetune.untrained:
        baselines.append(_measure_untrained(config, run, device))
    return Measurement(result, tuple(baselines), pictures, counts_of(fold, scores))


def _named(config: Config, adapter: Adapter | None) -> dict[str, Any]:
    if adapter is None:
        return {"method": config.Method.arch}
    return {"method": f"{config.Method.arch} + {config.Test_Finetune.adapt}", "oracle": adapter.oracle}


def _measure_untrained(config: Config, run: Run, device: torch.device) -> Result:
    """Test the same network with the random weights of ``Train.manual_seed``."""
    started = time.perf_counter()
    set_seed(config.Train.manual_seed or 0)
    model = build_few_shot(config, run.fold.split).to(device).to(memory_format=torch.channels_last)
    scores = run.evaluate(model, config, device=device)
    return _untrained(config, run, scores, time.perf_counter() - started)


def _untrained(config: Config, run: Run, scores: Sequence[Scores] | None, seconds: float) -> Result:
    method = f"{UNTRAINED} {config.Method.arch}"
    return result_of(config, run.fold, run.manifests, scores, method=method, seconds=seconds)


def weight_path(config: Config, fold: Fold) -> Path:
    """Return the checkpoint to test: as configured, or the one that the run's protocol selects."""
    if config.Test_Finetune.weight is not None:
        return fill(config.Test_Finetune.weight, config)
    return find_trained(config, LAST if fold.protocol.selection == "last" else BEST)


def precision_of(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """Return the autocast that the config asks for."""
    name = config.Test_Finetune.precision
    return nullcontext() if name == "float32" else torch.autocast(device.type, getattr(torch, name))
