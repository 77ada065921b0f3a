"""From the cells of a study to its jobs, each of them once and after those that it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fewseg.engine.setup.protocols import test_protocol
from fewseg.engine.setup.run_path import RUNS, result_key, run_folder, run_key, shipped_path
from fewseg.engine.setup.script import with_changes
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.engine.setup.weights import fill, tested_weights, trained_base_learner
from fewseg.engine.study.description.grid import Cell, cells_of
from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.description.study_file import StudyFile
from fewseg.engine.training.snapshot import BEST
from fewseg.util.config import Config, load_config
from fewseg.util.config.plain_yaml import as_text
from fewseg.util.errors import ConfigError, UserError

_FOLLOWED = ("split", "data_root", "train_list", "val_list", "use_split_coco")
"""Keys of ``Data`` that a base learner shares with the methods that start from it."""

_OF_METHOD = ("Method.", "Test_Finetune.", "auxiliary", "Data.auxiliary")
"""Beginnings of the keys that a method does not share with the one whose labels it learns from."""


def jobs_of(study: StudyFile) -> StudyJobs:
    """Expand a study into its jobs.

    Raises:
        ConfigError: a config of a cell is wrong; the message names the cell.
    """
    expansion = _Expansion(study)
    for cell in cells_of(study):
        try:
            expansion.add(cell)
        except UserError as failure:
            raise ConfigError(f"{study.path}: {cell.name}: {failure}") from failure
    tests = {group: test.job() for group, test in expansion.tests.items()}
    jobs = {**expansion.trainings, **{job.key: job for job in tests.values()}}
    return StudyJobs(
        study, jobs, [(cell, tests[group].key, result) for cell, group, result in expansion.cells]
    )


_Group = tuple[str, str, tuple[str, ...]]
"""Key of a training, and config and changes of a test of it except for the number of shots."""


@dataclass(frozen=True)
class _Test:
    """The tests of one checkpoint that differ in the number of shots only: shots -> key of the result."""

    training: Job
    name: str
    path: str
    opts: tuple[str, ...]
    config: Config
    keys: dict[int, str]

    def job(self) -> Job:
        config, shots = self.config, sorted(self.keys)
        results = tuple(self.keys[shot] for shot in shots)
        weights = self.training.folder / tested_weights(test_protocol(config))
        out = self.training.folder / "results"
        where = ["--shots", *map(str, shots), "--weight", str(weights), "--out", str(out)]
        return Job(
            key=_hash(Kind.TEST.value, self.training.key, *results),
            kind=Kind.TEST,
            name=f"{self.name}, {', '.join(map(str, shots))}-shot",
            script=("test.py", "--config", self.path, *where, "--opts", *self.opts),
            config=config,
            folder=out,
            needs=(self.training.key,),
            results=results,
        )


class _Expansion:
    """Collects the jobs of all cells, each once."""

    def __init__(self, study: StudyFile) -> None:
        self.study = study
        self.trainings: dict[str, Job] = {}
        self.folders: dict[Path, Job] = {}
        self.tests: dict[_Group, _Test] = {}
        self.cells: list[tuple[Cell, _Group, str]] = []

    def add(self, cell: Cell) -> None:
        """Add a cell, its test, and what must run before."""
        training, opts = self._training(cell.config, cell.changes, cell.training)
        shot = cell.test_shot or training.config.Data.shot
        config = _loaded(cell.config, tuple(opts))
        if shot != config.Data.shot:
            config = _loaded(cell.config, tuple(with_changes(opts, {"shot": shot})))
        group = training.key, cell.config, tuple(opts)
        test = self.tests.setdefault(
            group, _Test(training, cell.tested, cell.config, tuple(opts), config, {})
        )
        test.keys[shot] = result_key(config)
        self.cells.append((cell, group, test.keys[shot]))

    def _training(self, path: str, changes: Mapping[str, Any], name: str) -> tuple[Job, list[str]]:
        """Add the training that a config describes; return it, and the ``--opts`` of its tests."""
        opts = _opts(changes)
        named = config = _loaded(path, tuple(opts))
        if trains_base_learner(config):
            raise ConfigError(
                f"{path}: {config.Method.arch} is a base learner, which is trained where a method needs it; "
                "leave it out of the grid"
            )
        needs: list[Job] = []
        learner = trained_base_learner(config)
        if learner is not None:
            base, as_shipped = self._base_learner(config, learner)
            needs.append(base)
            if not as_shipped or self.study.root != RUNS:
                opts = [*opts, "base_weight", str(base.folder / BEST)]
                named = config if as_shipped else _loaded(path, tuple(opts))
        if config.Data.mined_labels is not None:
            mining = self._mining(path, config, changes, name)
            needs.append(mining)
            opts = with_changes(opts, {"mined_labels": mining.folder})
            named = _loaded(path, tuple(opts))
        return self._train_job(Kind.TRAIN, name, path, opts, named, needs)

    def _base_learner(self, config: Config, name: str) -> tuple[Job, bool]:
        """Add the training of the base learner that a method starts from.

        Returns:
            The job, and whether its settings are those of the shipped config.
        """
        wanted = config.with_values(Method={"arch": name})
        path = shipped_path(wanted)
        if not path.is_file():
            raise ConfigError(
                f"{path}: no such config of the base learner {name}, which {config.Method.arch} starts from; "
                "make one, or name its weights by base_weight"
            )
        shipped = _loaded(path, ())
        followed = {key: getattr(config.Data, key) for key in _FOLLOWED}
        place = {
            f"Data.{key}": value for key, value in followed.items() if value != getattr(shipped.Data, key)
        }
        options = {
            f"Method.backbone_options.{option}": value
            for option, value in config.Method.backbone_options.items()
            if shipped.Method.backbone_options.get(option) != value
        }
        opts = _opts(place | options | self.study.base_opts)
        named = _loaded(path, tuple(opts))
        title = f"{name} {config.Method.backbone} {config.Data.data_set} fold {config.Data.split}"
        job, _ = self._train_job(Kind.BASE, title, str(path), opts, named, ())
        return job, run_folder(named) == run_folder(_loaded(path, tuple(_opts(place))))

    def _mining(self, path: str, config: Config, changes: Mapping[str, Any], name: str) -> Job:
        """Add the job that mines the labels that a config learns from, and the training that it mines by.

        The path of the labels, ``exp/pascal/mlc_resnet50/split0_shot1/mined``, names the run and its config.
        """
        run = fill(str(config.Data.mined_labels), config).parent
        plain = Path(path).with_name(f"{run.parent.name}.yaml")
        if not plain.is_file():
            raise ConfigError(
                f"{plain}: no such config, by which the labels of Data.mined_labels would be mined; "
                f"name them RUN/mined, below {RUNS}"
            )
        shared = {key: value for key, value in changes.items() if not key.startswith(_OF_METHOD)}
        training, opts = self._training(str(plain), shared, f"{run.parent.name} for {name}")
        options = {option.replace("_", "-"): str(value) for option, value in self.study.mining.items()}
        folder = training.folder / "_".join(["mined", *map("".join, options.items())])
        given = [part for option, value in options.items() for part in (f"--{option}", value)]
        script = ("tools/mine_latent_classes.py", "--config", str(plain), "--out", str(folder), *given)
        job = Job(
            key=_hash(Kind.MINE.value, training.key, *given),
            kind=Kind.MINE,
            name=f"labels for {name}",
            script=(*script, "--opts", *opts),
            config=training.config,
            folder=folder,
            needs=(training.key,),
        )
        return self.trainings.setdefault(job.key, job)

    def _train_job(
        self, kind: Kind, name: str, path: str, opts: list[str], named: Config, needs: Sequence[Job]
    ) -> tuple[Job, list[str]]:
        """Add a training; ``named`` is the config that names its folder."""
        if named.Train.save_path is not None or named.Train.resume is not None:
            raise ConfigError(
                f"{path}: save_path and resume are set by the study; leave them out, and see folder"
            )
        folder = run_folder(named)
        if self.study.root != RUNS:
            folder = self.study.root / folder.relative_to(RUNS)
            opts = [*opts, "save_path", str(folder)]
        config = _loaded(path, tuple(opts))
        weights = config.Method.base_weight
        named_weights = [] if needs or weights is None else ["/".join(Path(weights).parts[-2:])]
        job = Job(
            key=_hash(kind.value, run_key(config), *named_weights, *(need.key for need in needs)),
            kind=kind,
            name=name,
            script=("train.py", "--config", path, "--opts", *opts, "resume", "auto"),
            config=config,
            folder=folder,
            needs=tuple(need.key for need in needs),
            processes=self.study.processes,
        )
        other = self.folders.setdefault(folder, job)
        if other.config.Method.base_weight != config.Method.base_weight:
            raise ConfigError(
                f"{folder}: would hold two trainings, from {other.config.Method.base_weight} and from "
                f"{weights}; give these files or their folders other names"
            )
        return self.trainings.setdefault(job.key, job), opts


@lru_cache(maxsize=1000)
def _loaded(path: str | Path, opts: tuple[str, ...]) -> Config:
    return load_config(path, opts)


def _opts(changes: Mapping[str, Any]) -> list[str]:
    return [part for key, value in changes.items() for part in (key, as_text(value))]


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
