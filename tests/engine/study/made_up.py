"""Results and records of trainings that were never run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewseg.engine.evaluation.outcome import plain
from fewseg.engine.setup.protocols import test_difference, test_protocol
from fewseg.engine.setup.run_path import run_key
from fewseg.engine.setup.tested_data import tested_data, trained_on
from fewseg.engine.study.description.grid import Cell
from fewseg.engine.study.description.jobs import Job, StudyJobs
from fewseg.engine.training.finished import Finished
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.result import Result, SeedResult, versions

HASH = "a" * 64


def finish(training: Job, **facts: Any) -> Finished:
    """Write the record of a training that has ended."""
    names = ("best.safetensors", "last.safetensors")
    usual: dict[str, Any] = {
        **{"key": run_key(training.config), "base_learner": None, "mined_labels": None, "epochs": 4},
        **{"best_score": 0.5, "best_epoch": 4, "weights": dict.fromkeys(names, HASH), "processes": 1},
        **{"parameters": 1_500_000, "seconds_a_step": 0.25, "peak_gib": 1.25, "versions": versions()},
    }
    finished = Finished(**{**usual, **facts})
    finished.write(training.folder)
    return finished


def score(cell: Cell, test_seed: int) -> float:
    """Return a figure that is different for every cell and seed."""
    text = "".join(f"{axis}{label}" for axis, label in cell.labels.items())
    return 0.3 + (sum(map(ord, text)) * 37 + test_seed * 11) % 101 / 400


def fill(
    jobs: StudyJobs,
    wanted: Callable[[Cell], bool] = lambda cell: True,
    change: Callable[[Cell], dict[str, Any]] = lambda cell: {},
) -> dict[tuple[str, ...], Result]:
    """Write the results of the cells that are wanted, and the records of their trainings.

    Returns:
        The labels of a cell -> its result.
    """
    results = {}
    for cell, test, key in jobs.cells:
        if wanted(cell):
            finish(jobs.jobs[jobs.jobs[test].needs[0]])
            result = result_of(jobs.jobs[test], cell, key, change(cell))
            write(jobs.jobs[test].folder, result)
            results[tuple(cell.labels.values())] = result
    return results


def result_of(job: Job, cell: Cell, key: str, changes: dict[str, Any]) -> Result:
    """Return the result of a cell, as its config says."""
    config = job.config
    tested, protocol = tested_data(config).Data.data_set, test_protocol(config)
    shot = int(cell.labels.get("test_shot", config.Data.shot))
    seeds = tuple(
        SeedResult(
            seed=seed,
            episode_hash=f"{tested}-{protocol.name}-{config.Data.split}-{shot}-{seed}",
            metrics={"mIoU": score(cell, seed), "FB-IoU": score(cell, seed) / 2},
            class_iou={"cat": score(cell, seed)},
        )
        for seed in (321, 322)
    )
    usual: dict[str, Any] = {
        **{"method": config.Method.arch, "backbone": config.Method.backbone},
        **{"data_set": tested, "fold": config.Data.split, "shot": shot, "trained_on": trained_on(config)},
        **{"protocol": protocol.name, "protocol_difference": plain(test_difference(config, protocol))},
        **{"trained_under": config.Data.protocol, "novel_in_train": protocol.novel_in_train},
        **{"episodes": 1000, "seconds": 50.0, "seeds": seeds, "key": key, "checkpoint_hash": HASH},
    }
    return Result(**{**usual, **changes})


def write(folder: Path, result: Result) -> Path:
    """Write a result under a name that its key alone makes, besides the setting."""
    path = folder / f"{result.key}_{result.setting}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(result.model_dump_json())
    assert path in ResultFolder(folder).results()
    return path
