"""Test runs: a model and the baselines, on a fold with a number of shots and all seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.classes.split import ClassSplit
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.engine.evaluation.baselines import score_baselines
from fewseg.engine.evaluation.encode_once import encode_equally, evaluate_together
from fewseg.engine.evaluation.one_by_one import count_one_by_one
from fewseg.engine.evaluation.outcome import counts_of, result_of, variant_of
from fewseg.engine.evaluation.precision import autocast_of
from fewseg.engine.evaluation.round_scores import RoundScores
from fewseg.engine.evaluation.scores import MakeScores, Scores
from fewseg.engine.evaluation.session import Session
from fewseg.engine.evaluation.tally import Tally, Task
from fewseg.engine.reports.panels import Panels
from fewseg.engine.setup.build import Adapter, build_adapter
from fewseg.engine.setup.data import classes_of_training, test_episodes, test_fold_of
from fewseg.engine.setup.lookup import find_trained
from fewseg.engine.setup.run_path import result_key
from fewseg.engine.setup.tested_network import build_tested
from fewseg.engine.setup.weights import describe, fill, load_trained, tested_weights, unusual_weights
from fewseg.model.fewshot import FewShotModel
from fewseg.model.folding import fold_for_testing
from fewseg.util.checkpoint import file_hash
from fewseg.util.config import Config
from fewseg.util.distributed import from_main, gather
from fewseg.util.log import get_log
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
        trained: the classes of the training.
        model: the model with its trained weights, on the CPU at first.
        episodes: episodes of the fold, under the protocol of the test.
        path, checkpoint_hash: path and hash of the checkpoint.
        unusual: what is unusual about the checkpoint; see ``unusual_weights``.
    """

    config: Config
    options: dict[str, Any]
    trained: ClassSplit
    model: FewShotModel
    episodes: EpisodeSet
    path: Path
    checkpoint_hash: str
    unusual: str

    @cached_property
    def adapter(self) -> Adapter | None:
        """The model in the adaptation that the config names, if any."""
        return build_adapter(self.config, self.model)

    def ready(self, device: torch.device) -> FewShotModel:
        """Return the model, made ready for the test on ``device``."""
        return made_ready(self.model, device, adapted=self.adapter is not None)

    @property
    def scores_of(self) -> MakeScores:
        """What counts the predictions of the model: those of every round too, if it is adapted."""
        return partial(RoundScores, rounds=self.adapter.rounds) if self.adapter else Scores

    def result(self, scores: Sequence[Scores] | None = None, **given: Any) -> Result:
        """Return the result of the trained model; it has no metrics where there are no scores yet."""
        trained = {
            "method": self.config.Method.arch,
            "checkpoint": str(self.path),
            "checkpoint_hash": self.checkpoint_hash,
            "seconds": 0.0,
            "key": result_key(self.config),  # without the options that the checkpoint sets
        }
        config = self.config.with_values(Method={"options": self.options})
        trained["variant"] = "_".join(filter(None, [variant_of(config), self.unusual])) or None
        return result_of(config, self.episodes, scores, **{**trained, **given})

    def adapted_result(self, scores: Sequence[Scores] | None = None, **given: Any) -> Result:
        """Return the result of the trained model, under the adaptation that the config names, if any."""
        if self.adapter is not None:
            method = f"{self.config.Method.arch} + {self.config.Test_Finetune.adapt}"
            given |= {"method": method, "oracle": self.adapter.oracle}
        return self.result(scores, **given)


def open_run(config: Config) -> Run:
    """Open the fold, the trained model and the episodes that ``config`` names."""
    fold = test_fold_of(config)
    path = weight_path(config, fold)
    trained = classes_of_training(config, fold)
    model = build_tested(config, trained, fold)
    checkpoint_hash = file_hash(path)
    options = {**config.Method.options, **load_trained(model, path, describe(config, trained))}
    return Run(
        config,
        options,
        trained,
        model,
        test_episodes(config, fold),
        path,
        checkpoint_hash,
        unusual=unusual_weights(config, fold.protocol, path),
    )


def expected(run: Run) -> list[Result]:
    """Return the results of a test run before the test, without metrics.

    The first is the model's, the second the untrained network's if ``Test_Finetune.untrained`` is set.
    """
    untrained = [_untrained(run, None, 0.0)] if run.config.Test_Finetune.untrained else []
    return [run.adapted_result(), *untrained]


def measure(
    configs: Sequence[Config],
    device: torch.device,
    session: Session | None = None,
) -> Iterator[list[Measurement]]:
    """Test the models that ``configs`` name, and yield one measurement for each.

    Args:
        configs: configs that name one checkpoint and differ only in the number of shots.
        device: device of the networks.
        session: where the counts are kept, what may stop the test, and who is told the progress.
    """
    session = session or Session()
    runs = [open_run(config) for config in configs]
    panels = [Panels(run.episodes, run.config.Test_Finetune.panels) for run in runs]
    tallies = [
        Tally(
            run.episodes,
            run.scores_of,
            observe=session.watch(panel),
            kept=session.kept(run.adapted_result()),
            pictures=panel.pictures,
        )
        for run, panel in zip(runs, panels, strict=True)
    ]
    counted = count_runs(runs, tallies, device, session)
    for run, panel, tally in zip(runs, panels, counted, strict=True):
        scores = tally.total()
        result = run.adapted_result(scores, seconds=tally.seconds)
        pictures = {name: picture for part in gather(panel.pictures) for name, picture in part.items()}
        baselines = [*score_baselines(run.config, run.episodes, session.check)]
        if run.config.Test_Finetune.untrained:
            baselines.append(_measure_untrained(run, device, session))
        yield [Measurement(result, tuple(baselines), pictures, counts_of(scores))]


def count_runs(
    runs: Sequence[Run], tallies: Sequence[Tally], device: torch.device, session: Session
) -> Iterator[Tally]:
    """Evaluate the runs, and yield the tally of each when it is complete.

    The runs share their encodings if these are equal; otherwise they are evaluated one after the other.
    """
    tasks = [Task(run.ready(device), tally) for run, tally in zip(runs, tallies, strict=True)]
    if runs[0].adapter is not None:
        for run, task in zip(runs, tasks, strict=True):
            session.begin([task.tally])
            count_one_by_one(task, session.check, run.adapter)
            yield task.tally
    elif len(tasks) > 1 and from_main(encode_equally(tasks)):
        get_log("test").info("%d numbers of shots share the encodings of one checkpoint", len(tasks))
        _evaluate(runs[0].config, tasks, session)
        yield from tallies
    else:
        for task in tasks:
            _evaluate(runs[0].config, [task], session)
            yield task.tally


def _evaluate(config: Config, tasks: Sequence[Task], session: Session) -> None:
    """Evaluate with the configured memory and precision."""
    session.begin([task.tally for task in tasks])
    test, device = config.Test_Finetune, tasks[0].model.device
    evaluate_together(
        tasks,
        cache_gib=test.cache_gib,
        precision=autocast_of(test.precision, device),
        check=session.check,
        workers=config.Train.workers,
    )


def made_ready(model: FewShotModel, device: torch.device, *, adapted: bool = False) -> FewShotModel:
    """Make a model with its weights ready for nothing but tests on a device: folded, in a fast memory format.

    ``adapted`` says whether test-time adaptation trains its meta-learner; see ``fold_for_testing``.
    """
    return fold_for_testing(model, adapted=adapted).to(device).to(memory_format=torch.channels_last)


def _measure_untrained(run: Run, device: torch.device, session: Session) -> Result:
    """Test the same network with the random weights of ``Train.manual_seed``."""
    set_seed(run.config.Train.manual_seed or 0)
    model = made_ready(build_tested(run.config, run.trained, run.episodes.fold), device)
    kept = session.kept(_untrained(run, None, 0.0), beside=run.adapted_result())
    tally = Tally(run.episodes, observe=session.watch(), kept=kept)
    _evaluate(run.config, [Task(model, tally)], session)
    return _untrained(run, tally.total(), tally.seconds)


def _untrained(run: Run, scores: Sequence[Scores] | None, seconds: float) -> Result:
    method = f"{UNTRAINED} {run.config.Method.arch}"
    return result_of(run.config, run.episodes, scores, method=method, seconds=seconds, key=None)


def weight_path(config: Config, fold: Fold) -> Path:
    """Return the path of the checkpoint to test: as configured, or as the run's protocol selects it."""
    if config.Test_Finetune.weight is not None:
        return fill(config.Test_Finetune.weight, config)
    return find_trained(config, tested_weights(fold.protocol))
