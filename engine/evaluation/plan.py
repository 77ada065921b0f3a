"""The plan of a test: its runs are opened before the first is tested, and existing results are found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.engine.evaluation.generalized import expected_generalized, measure_generalized
from fewseg.engine.evaluation.measure import Measurement, expected, measure, open_run
from fewseg.engine.evaluation.session import Session
from fewseg.engine.setup.run_path import run_folder
from fewseg.engine.setup.tested_data import tests_other_data
from fewseg.util import distributed
from fewseg.util.config import Config
from fewseg.util.log import get_log
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.result import Result

_NAMED = 20
"""The most classes that are named in the log."""


@dataclass(frozen=True)
class Plan:
    """A run to be tested, of which data and weights have been found.

    Attributes:
        config: config of the run.
        folder: folder of the run whose weights are tested; the config's own if it names the weights.
        results: the results of the test, without metrics.
        untrained: the result of the network with random weights, or None if that is not tested.
    """

    config: Config
    folder: Path
    results: tuple[Result, ...]
    untrained: Result | None

    def __str__(self) -> str:
        words = f"fold {self.results[0].fold}, {self.config.Data.shot}-shot"
        trained_on = self.results[0].trained_on
        return words if trained_on is None else f"{words}, trained on {trained_on}"

    def stored(self, folder: ResultFolder) -> list[Path]:
        """Return the files of an earlier identical test; empty unless all of them exist."""
        files = [folder.find(result) for result in self.results]
        expected_files = [*files, *([folder.baselines.find(self.untrained)] if self.untrained else [])]
        complete = distributed.from_main(None not in expected_files)
        return [path for path in distributed.from_main(files) if path] if complete else []

    @property
    def shared(self) -> str:
        """What the plans have in common that one evaluation can serve: checkpoint and all but the shots."""
        config = self.config.with_values(Data={"shot": 1}).as_dict()
        return json.dumps([self.results[0].checkpoint_hash, config], sort_keys=True, default=str)


def together(plans: Iterable[Plan]) -> list[list[Plan]]:
    """Group the plans of one checkpoint that differ only in the number of shots."""
    groups: dict[str, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(plan.shared, []).append(plan)
    return [*groups.values()]


def measure_plans(
    plans: Sequence[Plan], device: torch.device, session: Session
) -> Iterator[list[Measurement]]:
    """Test the plans of a group, and yield the measurements of each in turn, one for each result.

    Args:
        plans: a group of ``together``.
        device: device of the networks.
        session: where the counts are kept, what may stop the test, and who is told the progress.
    """
    kind = measure_generalized if plans[0].config.Test_Finetune.generalized else measure
    yield from kind([plan.config for plan in plans], device, session)


def look_up(config: Config) -> Plan:
    """Open fold, weights and episodes of a run as its test does, without keeping the network.

    Raises:
        UserError: something is missing or does not match.
    """
    run = open_run(config)
    if tests_other_data(config):
        _tell_classes(run.episodes.fold)
    folder = run.path.parent if config.Test_Finetune.weight is None else run_folder(config)
    if config.Test_Finetune.generalized:
        return Plan(config, folder, tuple(expected_generalized(run)), None)
    result, *untrained = expected(run)
    return Plan(config, folder, (result,), untrained[0] if untrained else None)


def _tell_classes(fold: Fold) -> None:
    """Log which classes of other data than the training's are tested."""
    names = [fold.classes.label(class_id) for class_id in fold.classes.novel]
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    listed = ", ".join(names[:_NAMED])
    get_log("test").info("%s: %d classes are tested: %s%s", fold.data_set, len(names), listed, rest)
