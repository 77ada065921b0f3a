"""One test run: a model and the baselines, on a fold with a number of shots and all seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.engine.evaluation.baselines import score_baselines
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.evaluation.outcome import counts_of, result_of
from fewseg.engine.evaluation.scores import Scores
from fewseg.engine.reports.panels import Panels
from fewseg.engine.setup.build import Adapter, build_adapter, build_few_shot
from fewseg.engine.setup.data import test_episodes, test_fold_of
from fewseg.engine.setup.lookup import find_trained
from fewseg.engine.setup.run_path import result_key
from fewseg.engine.setup.weights import describe, fill, load_trained, tested_weights
from fewseg.model.fewshot import FewShotModel
from fewseg.util.checkpoint import file_hash
from fewseg.util.config import Config
from fewseg.util.distributed import gather
from fewseg.util.results.episode_counts import EpisodeCounts
from fewseg.util.results.result import Result
from fewseg.util.seed import set_seed

UNTRAINED = "untrained"
"""First word of the name of a method whose network has random weights."""


@dataclass(frozen=True)
class Measurement:
    """The outcome of a test run.

    Attributes:
        result: result of the model.
        baselines: results of the baselines on the same episodes.
        pictures: name -> panel of an episode, RGB uint8 [H,W,3].
        counts: counts of every episode; None where the seeds differ in their number of episodes.
    """

    result: Result
    baselines: tuple[Result, ...]
    pictures: dict[str, np.ndarray]
    counts: EpisodeCounts | None


@dataclass(frozen=True)
class Run:
    """A test run before its first episode.

    Attributes:
        config: config of the test.
        options: options of the method, with those that the checkpoint requires.
        model: the model with its trained weights, on the CPU at first.
        episodes: episodes of the fold, under the protocol of the test.
        path, checkpoint_hash: path and hash of the checkpoint.
        started: start time, by ``time.perf_counter``.
    """

    config: Config
    options: dict[str, Any]
    model: FewShotModel
    episodes: EpisodeSet
    path: Path
    checkpoint_hash: str
    started: float

    def result(self, scores: Sequence[Scores] | None = None, **given: Any) -> Result:
        """Return the result of the trained model; it has no metrics where there are no scores yet."""
        trained = {
            "method": self.config.Method.arch,
            "checkpoint": str(self.path),
            "checkpoint_hash": self.checkpoint_hash,
            "seconds": time.perf_counter() - self.started,
            "key": result_key(self.config),  # without the options that the checkpoint sets
        }
        config = self.config.with_values(Method={"options": self.options})
        return result_of(config, self.episodes, scores, **{**trained, **given})

    def evaluate(self, model: FewShotModel, **more: Any) -> list[Scores]:
        """Return the scores of ``model`` on the episodes, with the configured memory and precision.

        Args:
            model: the model on its device.
            more: see ``engine.evaluation.encode_once.evaluate``.
        """
        test, device = self.config.Test_Finetune, model.device
        reduced = test.precision != "float32"
        precision = torch.autocast(device.type, getattr(torch, test.precision)) if reduced else None
        return evaluate(model, self.episodes, cache_gib=test.cache_gib, precision=precision, **more)


def open_run(config: Config) -> Run:
    """Open the fold, the trained model and the episodes that ``config`` names."""
    fold = test_fold_of(config)
    path = weight_path(config, fold)
    model = build_few_shot(config, fold.classes)
    checkpoint_hash = file_hash(path)
    options = {**config.Method.options, **load_trained(model, path, describe(config, fold.classes))}
    episodes = test_episodes(config, fold)
    return Run(config, options, model, episodes, path, checkpoint_hash, time.perf_counter())


def expected(run: Run) -> list[Result]:
    """Return the results of a test run before the test, without metrics.

    The first is the model's, the second the untrained network's if ``Test_Finetune.untrained`` is set.
    """
    untrained = [_untrained(run, None, 0.0)] if run.config.Test_Finetune.untrained else []
    return [run.result(**_adaptation(run.config, build_adapter(run.config, run.model))), *untrained]


def measure(config: Config, device: torch.device) -> Measurement:
    """Test the model that ``config`` names on its fold with its number of shots."""
    run = open_run(config)
    on_device(run.model, device)
    panels = Panels(run.episodes, config.Test_Finetune.panels)
    adapter = build_adapter(run.config, run.model)
    if adapter is not None:
        scores = evaluate_one_by_one(run.model, run.episodes, adapter=adapter, observe=panels)
    else:
        scores = run.evaluate(run.model, observe=panels)
    result = run.result(scores, **_adaptation(run.config, adapter))
    pictures = {name: picture for part in gather(panels.pictures) for name, picture in part.items()}
    baselines = [*score_baselines(config, run.episodes)]
    if config.Test_Finetune.untrained:
        baselines.append(_measure_untrained(run, device))
    return Measurement(result, tuple(baselines), pictures, counts_of(scores))


def on_device(model: FewShotModel, device: torch.device) -> FewShotModel:
    """Move a model to a device, in the memory format in which convolutions are faster."""
    return model.to(device).to(memory_format=torch.channels_last)


def _adaptation(config: Config, adapter: Adapter | None) -> dict[str, Any]:
    """Return the entries of a result that describe the adaptation."""
    if adapter is None:
        return {}
    return {"method": f"{config.Method.arch} + {config.Test_Finetune.adapt}", "oracle": adapter.oracle}


def _measure_untrained(run: Run, device: torch.device) -> Result:
    """Test the same network with the random weights of ``Train.manual_seed``."""
    started = time.perf_counter()
    set_seed(run.config.Train.manual_seed or 0)
    scores = run.evaluate(on_device(build_few_shot(run.config, run.episodes.fold.classes), device))
    return _untrained(run, scores, time.perf_counter() - started)


def _untrained(run: Run, scores: Sequence[Scores] | None, seconds: float) -> Result:
    method = f"{UNTRAINED} {run.config.Method.arch}"
    return result_of(run.config, run.episodes, scores, method=method, seconds=seconds, key=None)


def weight_path(config: Config, fold: Fold) -> Path:
    """Return the path of the checkpoint to test: as configured, or as the run's protocol selects it."""
    if config.Test_Finetune.weight is not None:
        return fill(config.Test_Finetune.weight, config)
    return find_trained(config, tested_weights(fold.protocol))
