"""The grid of a study: its axes, and the cells that they span."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewseg.engine.study.description.study_file import StudyFile
from fewseg.util.config.schema import TestFinetune
from fewseg.util.errors import ConfigError

TEST_SHOT = "test_shot"
"""The axis of the numbers of supports that one checkpoint is tested with."""

AXES = {
    "data": "Data.data_set",
    "method": "Method.arch",
    "backbone": "Method.backbone",
    "fold": "Data.split",
    "shot": "Data.shot",
    "seed": "Train.manual_seed",
    TEST_SHOT: None,
}
"""Short name of an axis -> the key of the config that it sets. Every key is an axis by its own name."""

_BY_THEMSELVES = ("data", "method", "backbone")
"""Axes whose labels need no name beside them."""

_TEST_KEYS = TestFinetune.model_fields.keys() - {"weight"}

Axis = dict[str, dict[str, Any]]
"""Label of a value -> the keys of the config that it sets."""

_MOST_CELLS = 100_000


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    Attributes:
        labels: axis -> the label of its value.
        config: path of the config file.
        changes: keys of the config and their values, without those of the tests' numbers of supports.
        test_shot: the number of supports in the test; None: that of the training.
        tested_only: axes that only change the test, so that their cells share a training.
    """

    labels: Mapping[str, str]
    config: str
    changes: Mapping[str, Any]
    test_shot: int | None
    tested_only: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The labels in words: ``bam resnet50 fold 0``."""
        return _words(self.labels)

    @property
    def tested(self) -> str:
        """The name without the number of supports of the test, and without that of the training."""
        shots = ("shot", TEST_SHOT)
        return _words({axis: label for axis, label in self.labels.items() if axis not in shots})

    @property
    def training(self) -> str:
        """The name without what only concerns the test."""
        return _words({axis: label for axis, label in self.labels.items() if axis not in self.tested_only})


def axes_of(study: StudyFile) -> dict[str, Axis]:
    """Return the axes of a study with the keys that every value sets.

    Raises:
        ConfigError: an axis is no list and no mapping, or it is empty.
    """
    axes: dict[str, Axis] = {}
    for name, values in study.grid.items():
        if isinstance(values, dict):
            wrong = [label for label, changes in values.items() if not isinstance(changes, dict)]
            if wrong:
                raise ConfigError(
                    f"{study.path}: grid.{name}.{wrong[0]}: must be a mapping of keys and values; "
                    "{} changes none"
                )
            axes[name] = values
        else:
            key = AXES.get(name, name)
            listed = values if isinstance(values, list) else [values]
            axes[name] = {_label(value): {key: value} if key else {} for value in listed}
            if name == TEST_SHOT and not all(isinstance(shot, int) and shot >= 1 for shot in listed):
                raise ConfigError(f"{study.path}: grid.{name}: must be numbers of supports, got {listed}")
        if not axes[name]:
            raise ConfigError(f"{study.path}: grid.{name}: has no value; give one or leave the axis out")
    return axes


def cells_of(study: StudyFile) -> Iterator[Cell]:
    """Yield the cells of a study in the order of its axes.

    Raises:
        ConfigError: no config file exists for a cell, or there are too many cells.
    """
    axes = axes_of(study)
    names = [*axes]
    tested_only = frozenset(name for name, axis in axes.items() if _only_tests(name, axis))
    number = 0
    for point in itertools.product(*axes.values()):
        labels = dict(zip(names, point, strict=True))
        if _left_out(labels, study):
            continue
        number += 1
        if number > _MOST_CELLS:
            raise ConfigError(f"{study.path}: grid: has more than {_MOST_CELLS} cells; make it smaller")
        config, placed = _config_of(study, labels)
        changes: dict[str, Any] = dict(study.opts)
        for name, label in labels.items():
            # What the name of the config file says, the file itself sets.
            changes |= {} if name in placed and name in _BY_THEMSELVES else axes[name][label]
        test_shot = int(labels[TEST_SHOT]) if TEST_SHOT in labels else None
        yield Cell(labels, config, changes, test_shot, tested_only)
    if number == 0:
        raise ConfigError(f"{study.path}: grid: leave_out leaves no cell; correct it")


def _config_of(study: StudyFile, labels: Mapping[str, str]) -> tuple[str, set[str]]:
    """Return the path of the config of a cell, and the axes that are named in it."""
    tried = []
    for pattern in study.config:
        placed = {name for name in labels if f"{{{name}}}" in pattern}
        path = pattern
        for name in placed:
            path = path.replace(f"{{{name}}}", labels[name])
        if Path(path).is_file():
            return path, placed
        tried.append(path)
    raise ConfigError(
        f"{study.path}: config: no such file: {' or '.join(tried)}; correct config or grid, or leave "
        "the cell out by leave_out"
    )


def _only_tests(name: str, axis: Axis) -> bool:
    keys = {_test_key(key) for value in axis.values() for key in value}
    return name == TEST_SHOT or (bool(keys) and keys <= _TEST_KEYS)


def _test_key(key: str) -> str:
    """Return the name of a key without the section of tests and without an option: ``data_opts``."""
    return key.removeprefix("Test_Finetune.").partition(".")[0]


def _words(labels: Mapping[str, str]) -> str:
    return " ".join(
        label if axis in _BY_THEMSELVES else f"{axis.rpartition('.')[2]} {label}"
        for axis, label in labels.items()
    )


def _left_out(labels: Mapping[str, str], study: StudyFile) -> bool:
    return any(
        all(labels[axis] in _labels(wanted) for axis, wanted in rule.items()) for rule in study.leave_out
    )


def _labels(value: Any) -> list[str]:
    return [_label(part) for part in (value if isinstance(value, list) else [value])]


def _label(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
