"""Study files: which configs, which grid over them, and which tables come of it.

```yaml
config: config/{data}/{method}_{backbone}.yaml
grid: {data: [shapes], method: [bam, panet], backbone: [resnet18], fold: [0, 1], shot: [1, 5]}
opts: {epochs: 4}
tables:
  - {rows: [method], columns: [shot, fold], figure: mIoU}
```
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fewseg.util.config import types as t
from fewseg.util.config.nearest_key import nearest
from fewseg.util.config.plain_yaml import pairs, parse, plain
from fewseg.util.errors import ConfigError, shortened
from fewseg.util.files import read_text

_Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TableLayout(_Part):
    """How the figures of a study are arranged in one table."""

    rows: _Names
    """The axes whose values make the rows."""
    columns: _Names = ()
    """The axes whose values make the columns; figures are averaged over the other axes, such as the seeds."""
    figure: _Names = ("mIoU",)
    """What is shown: metrics of the test, or ``seconds a step``, ``seconds an episode``, ``peak GiB`` and
    ``parameters``."""


class StudyFile(_Part):
    """A study, as its file describes it."""

    path: Path
    """The study file."""
    config: t.OneOrMore
    """The config of a cell, with the names of axes in braces; of several, the first file that exists."""
    grid: dict[str, Any]
    """Axis -> its values: a list, or a mapping of labels to keys and their values."""
    leave_out: tuple[dict[str, Any], ...] = ()
    """Cells that are not wanted: values of some axes."""
    opts: dict[str, Any] = Field(default_factory=dict)
    """Changes to the configs of all few-shot methods."""
    base_opts: dict[str, Any] = Field(default_factory=dict)
    """Changes to the configs of the base learners that these methods start from."""
    mining: dict[str, Any] = Field(default_factory=dict)
    """Options of ``tools/mine_latent_classes.py``, for configs that learn from mined labels."""
    folder: t.Path = "exp"
    """Where runs, results and the records of jobs go."""
    processes: t.Count = 1
    """Processes, one per GPU, of every training."""
    tables: tuple[TableLayout, ...] = ()
    """The tables; by default one of all cells."""
    slurm: dict[str, Any] = Field(default_factory=dict)
    """Options of submitit for SLURM, such as ``slurm_partition``."""

    @property
    def name(self) -> str:
        """The name of the study: that of its file, and before it that of a folder below ``studies``.

        The papers' studies have such folders, so that ``bam/main.yaml`` and ``panet/main.yaml`` differ.
        """
        folder = self.path.resolve().parent
        return f"{folder.name}_{self.path.stem}" if folder.parent.name == "studies" else self.path.stem

    @property
    def root(self) -> Path:
        """``folder`` as a path."""
        return Path(self.folder)


def read_study(path: str | Path) -> StudyFile:
    """Read a study file.

    Raises:
        ConfigError: one line with file, line and key, what is wrong, and what to do.
        DataError: the file cannot be read.
    """
    path = Path(path)
    text = read_text(path, "the study file", "; check the path")
    try:
        root = parse(text)
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: no valid YAML; correct this line") from failure
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}:1: must be a mapping with config and grid; see docs/studies.md")
    known = [name for name in StudyFile.model_fields if name != "path"]
    values, places = {}, {}
    for key, node, place in pairs(root, str(path)):
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{place}: {key}: unknown key; {hint}")
        values[key], places[key] = plain(node, place), place
    try:
        study = StudyFile(path=path, **values)
    except ValidationError as failure:
        error = failure.errors()[0]
        key = ".".join(str(part) for part in error["loc"])
        place = places.get(str(error["loc"][0]), f"{path}:1")
        raise ConfigError(
            f"{place}: {key}: {error['msg'].lower()}, got {_shown(error['input'])}"
        ) from failure
    _check(study, places)
    return study


def _shown(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else shortened(value)


def _check(study: StudyFile, places: Mapping[str, str]) -> None:
    """Raise ConfigError if the parts of the file do not fit together."""
    if not study.grid:
        raise ConfigError(
            f"{places.get('grid', study.path)}: grid: has no axis; give one, such as fold: [0, 1]"
        )
    used = [("leave_out", axis) for rule in study.leave_out for axis in rule]
    used += [("tables", axis) for table in study.tables for axis in (*table.rows, *table.columns)]
    for key, axis in used:
        if axis not in study.grid:
            raise ConfigError(f"{places[key]}: {key}: {axis} is no axis; grid has {', '.join(study.grid)}")
    if not all(rule for rule in study.leave_out):
        raise ConfigError(f"{places['leave_out']}: leave_out: an empty rule would leave out every cell")
