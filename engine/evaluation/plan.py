"""The runs of a test, looked up before the first one is measured, and those that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fewseg.engine.evaluation.generalized import expected_generalized, measure_generalized
from fewseg.engine.evaluation.measure import Measurement, expected, measure, open_run
from fewseg.engine.setup.run_path import run_folder
from fewseg.util import distributed
from fewseg.util.config import Config
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.result import Result


@dataclass(frozen=True)
class Plan:
    """A run that is to be tested, of which all is there that it takes.

    Attributes:
        config: of the run.
        folder: of the run whose weights are tested; by the config where those were named.
        results: that it gives, without figures.
        untrained: the result of the network with random weights, where that is asked for.
    """

    config: Config
    folder: Path
    results: tuple[Result, ...]
    untrained: Result | None

    def stored(self, folder: ResultFolder) -> list[Path]:
        """Return the files of an earlier test of the same; empty unless all of them are there."""
        found = [folder.find(result) for result in self.results]
        wanted = [*found, *([folder.baselines.find(self.untrained)] if self.untrained else [])]
        complete = distributed.from_main(None not in wanted)
        return [path for path in distributed.from_main(found) if path] if complete else []

    def measure(self, device: torch.device) -> list[Measurement]:
        """Test."""
        if self.config.Test_Finetune.generalized:
            return measure_generalized(self.config, device)
        return [measure(self.config, device)]


def look_up(config: Config) -> Plan:
    """Open a run as its test will: fold, weights and episodes; the network is not kept.

    Raises:
        UserError: something is missing or does not fit.
    """
    run = open_run(config)
    folder = run.path.parent if config.Test_Finetune.weight is None else run_folder(config)
    if config.Test_Finetune.generalized:
        return Plan(config, folder, tuple(expected_generalized(run)), None)
    result, *untrained = expected(run)
    return Plan(config, folder, (result,), untrained[0] if untrained else None)
