"""The figures of results, drawn after the test from their counts and weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fewseg.engine.evaluation.measure import open_run
from fewseg.engine.reports.figures.run import Tested, write_figures
from fewseg.engine.reports.report import title_of
from fewseg.util.config import Config
from fewseg.util.log import get_log
from fewseg.util.results.episode_counts import counts_path, read_counts
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.result import read_result


def visualise(config: Config, folder: ResultFolder, files: Sequence[Path], device: torch.device) -> None:
    """Write the figures of a run's result if the config asks for them.

    The figures show the few-shot prediction, so a generalised test has none.

    Args:
        config: config of the run.
        folder: folder of the results.
        files: files of the run's results, the first of which is the model's.
        device: device of the network.

    Raises:
        ResultError: a file cannot be read or written.
    """
    number, log = config.Test_Finetune.visualise, get_log("test")
    if not number:
        return
    if config.Test_Finetune.generalized:
        log.info("no figures: visualise shows few-shot predictions, and this test is generalised")
        return
    run, file = open_run(config), files[0]
    run.ready(device)
    counts = read_counts(counts_path(file)) if counts_path(file).exists() else None
    base_names = [run.trained.label(class_id) for class_id in run.trained.base]
    title = title_of(read_result(file))
    tested = Tested(run.model, run.adapter, run.episodes, counts, base_names, title)
    log.info("figures are in %s", write_figures(tested, folder.figures_of(file), number).parent)
