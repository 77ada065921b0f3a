"""Result files: one JSON file per run, which says completely what its figures mean.

A run is one model on one fold with one number of shots, measured with every seed of the protocol. IoUs are
stored as fractions, 0 to 1; tables show per cent.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from fewseg import __version__
from fewseg.util.errors import ResultError
from fewseg.util.files import write_text

SCHEMA: Literal[1] = 1
"""The version of the format; it is raised by a change that older readers would misread."""


def versions() -> dict[str, str]:
    """Return the versions that a figure may depend on."""
    return {"fewseg": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}


class RoundResult(BaseModel):
    """The figures of one round of an adaptation.

    Attributes:
        metrics: name -> value that the round's predictions of all episodes have: ``mIoU``, ``FB-IoU``, ...
        chosen: the number of episodes in which the round's prediction was returned.
    """

    model_config = ConfigDict(frozen=True)

    metrics: dict[str, float]
    chosen: int


class SeedResult(BaseModel):
    """The figures of one seed.

    Attributes:
        seed: the seed that the episodes were drawn with.
        episode_hash: the hash of the episodes; equal hashes mean equal episodes.
        metrics: name -> value: ``mIoU``, ``FB-IoU``, ``pIoU``, ``mIoU_meta``, ``mIoU_base``, ...
        class_iou: IoU by class name; None for a class that was not tested, because no query shows it.
        rounds: the figures of every round of an adaptation, the unadapted model's first; else empty.
    """

    model_config = ConfigDict(frozen=True)

    seed: int
    episode_hash: str
    metrics: dict[str, float]
    class_iou: dict[str, float | None] = Field(default_factory=dict)
    rounds: tuple[RoundResult, ...] = ()


class Result(BaseModel):
    """One run. Means, standard deviations (of the population) and the joint hash follow from the seeds."""

    model_config = ConfigDict(frozen=True)

    fewseg_result: Literal[1] = SCHEMA
    method: str
    backbone: str
    data_set: str
    fold: int
    shot: int
    ways: int = 1
    protocol: str
    """The protocol of the test."""
    protocol_difference: dict[str, tuple[Any, Any]] = Field(default_factory=dict)
    """Points of the test in which the run departs from its protocol: name -> (preset, run)."""
    trained_on: str | None = None
    """The data set of the training, with its fold where ``fold`` is another; None: that of the test."""
    training_data: dict[str, Any] = Field(default_factory=dict)
    """Where the data of the training are, as its config says; empty: those of the test."""
    trained_under: str | None = None
    training_difference: dict[str, tuple[Any, Any]] = Field(default_factory=dict)
    """Points in which the training departs from ``trained_under``, the protocol of the training."""
    novel_in_train: str | None = None
    absent_classes: Literal["zero", "left_out"] | None = None
    """Whether a class without episodes counts as an IoU of 0 in the means, or is left out of them."""
    setting: str = "few-shot"
    """What was measured: ``few-shot``, ``generalised-...``, or the name of an adaptation."""
    annotation: str = "mask"
    """How supports were annotated."""
    variant: str | None = None
    """One word for what distinguishes the run from others of its method, data set and backbone."""
    oracle: bool = False
    """Whether a choice was made by the query's ground truth, which is not known in real use."""
    episodes: int
    seeds: tuple[SeedResult, ...] = Field(min_length=1)
    seconds: float
    config: dict[str, Any] = Field(default_factory=dict)
    key: str | None = None
    """``result_key`` of the config as the user gave it; None in results of earlier versions and of baselines.
    """
    checkpoint: str | None = None
    checkpoint_hash: str | None = None
    versions: dict[str, str] = Field(default_factory=versions)

    @model_validator(mode="after")
    def _seeds_agree(self) -> Result:
        first = self.seeds[0]
        for seed in self.seeds:
            if seed.metrics.keys() != first.metrics.keys() or seed.class_iou.keys() != first.class_iou.keys():
                raise ValueError(f"seed {seed.seed} has other metrics or classes than seed {first.seed}")
            if len(seed.rounds) != len(first.rounds):
                raise ValueError(f"seed {seed.seed} has another number of rounds than seed {first.seed}")
        return self

    @computed_field
    @property
    def mean(self) -> dict[str, float]:
        """Every metric's mean over the seeds."""
        return {name: statistics.fmean(values) for name, values in self._by_name().items()}

    @computed_field
    @property
    def std(self) -> dict[str, float]:
        """Every metric's standard deviation over the seeds."""
        return {name: statistics.pstdev(values) for name, values in self._by_name().items()}

    @computed_field
    @property
    def class_iou(self) -> dict[str, float | None]:
        """Every class's mean IoU over the seeds that test it; None where none does."""
        by_class = {name: self.values_of(name) for name in self.seeds[0].class_iou}
        return {name: statistics.fmean(values) if values else None for name, values in by_class.items()}

    @computed_field
    @property
    def classes_tested(self) -> str:
        """The number of classes that were tested, of all: ``7 of 13``."""
        tested, classes = self.tested
        return f"{tested} of {classes}"

    @computed_field
    @property
    def episode_hash(self) -> str:
        """One hash for the episodes of all seeds."""
        return hashlib.sha256(" ".join(seed.episode_hash for seed in self.seeds).encode()).hexdigest()[:16]

    @property
    def rounds(self) -> tuple[RoundResult, ...]:
        """The rounds of an adaptation: the means of their metrics, and how often each was chosen in all."""
        return tuple(
            RoundResult(
                metrics={
                    name: statistics.fmean(seed.metrics[name] for seed in seeds) for name in seeds[0].metrics
                },
                chosen=sum(seed.chosen for seed in seeds),
            )
            for seeds in zip(*(seed.rounds for seed in self.seeds), strict=True)
        )

    @property
    def test(self) -> tuple[str, int, int, int]:
        """What is tested: data set, fold, shots, ways."""
        return self.data_set, self.fold, self.shot, self.ways

    @property
    def tested(self) -> tuple[int, int]:
        """The number of classes that were tested, and of all classes."""
        values = self.class_iou.values()
        return sum(value is not None for value in values), len(values)

    @property
    def tested_in_words(self) -> str:
        """How many classes were tested, and how the other ones count; empty if all were tested."""
        tested, classes = self.tested
        if tested == classes:
            return ""
        rest = "counts as 0 in the mean" if self.absent_classes == "zero" else "is left out of the mean"
        return f"{self.classes_tested} classes tested; the rest {rest}"

    def values_of(self, class_name: str) -> list[float]:
        """Return the IoU of a class under every seed that tests it."""
        values = (seed.class_iou.get(class_name) for seed in self.seeds)
        return [value for value in values if value is not None]

    def _by_name(self) -> dict[str, list[float]]:
        return {name: [seed.metrics[name] for seed in self.seeds] for name in self.seeds[0].metrics}


def write_result(path: str | Path, result: Result) -> Path:
    """Write a result atomically and return the path of the file.

    Args:
        path: of the file; ``util.results.identity`` gives its name.
        result: of one run.

    Raises:
        ResultError: the file cannot be written.
    """
    write_text(path, result.model_dump_json(indent=1) + "\n", ResultError)
    return Path(path)


def read_result(path: str | Path) -> Result:
    """Read a result file.

    Raises:
        ResultError: missing, no JSON, no result of FewSeg, or of another schema.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as failure:
        raise ResultError(f"{path}: cannot be read ({failure.strerror}); check the path") from failure
    except ValueError as failure:
        raise ResultError(f"{path}: no JSON or cut short; run the test again") from failure
    schema = content.get("fewseg_result") if isinstance(content, dict) else None
    if schema is None:
        raise ResultError(f"{path}: no result file of FewSeg; leave it out")
    if schema != SCHEMA:
        raise ResultError(
            f"{path}: has schema {schema}, this FewSeg reads {SCHEMA}; use the version that wrote it"
        )
    try:
        return Result.model_validate(content)
    except ValidationError as failure:
        error = failure.errors()[0]
        key = ".".join(str(part) for part in error["loc"])
        raise ResultError(f"{path}: {key}: {error['msg'].lower()}; run the test again") from failure
