"""What is kept about every job, in ``jobs/KEY`` below the folder of a study: its log, error and attempts."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fewseg.engine.setup.protocols import test_protocol
from fewseg.engine.setup.tested_data import tested_data
from fewseg.engine.study.description.jobs import Job, Kind
from fewseg.util.files import write_text

JOBS = "jobs"
_MADE = "job.json"

FILES = (_MADE, "claim", "log", "error", "attempts.jsonl", "slurm", "nodes.json")
"""The files of a record, besides the logs of further nodes, ``log.1`` and so on."""


@dataclass(frozen=True)
class Attempt:
    """One start of a job.

    Attributes:
        begun: Unix time of the start.
        seconds: how long it took; None while it runs, and if nobody saw it end.
        status: exit status; None likewise, negative for a signal.
        host: the machine.
    """

    begun: float
    seconds: float | None
    status: int | None
    host: str


@dataclass(frozen=True)
class Traits:
    """What the duration of a job depends on.

    Attributes:
        kind: what it does.
        method: the meta-learner or base learner.
        backbone: its backbone.
        data_set: the data set.
        size: epochs of a training, episodes of a test; 1 for other jobs.
    """

    kind: str
    method: str
    backbone: str
    data_set: str
    size: int

    @classmethod
    def of(cls, job: Job) -> Traits:
        """Return the traits of a job."""
        config, size, data_set = job.config, 1, job.config.Data.data_set
        if job.kind in (Kind.BASE, Kind.TRAIN):
            size = config.Train.epochs
        elif job.kind is Kind.TEST:
            protocol, data_set = test_protocol(config), tested_data(config).Data.data_set
            size = protocol.episodes * len(protocol.seeds) * len(job.results)
        return cls(job.kind.value, config.Method.arch, config.Method.backbone, data_set, size)


@dataclass(frozen=True)
class Made:
    """What a job makes.

    Attributes:
        name: what the job does, in words.
        script: the script and its arguments.
        folder: the folder that it writes into, relative to that of the record.
        results: keys of the results of a test.
    """

    name: str
    script: tuple[str, ...]
    folder: str
    results: tuple[str, ...]


@dataclass(frozen=True)
class JobRecord:
    """The record of one job.

    Attributes:
        folder: its folder.
    """

    folder: Path

    @classmethod
    def of(cls, root: Path, job: Job) -> JobRecord:
        """Return the record of a job of a study with this folder."""
        return cls(root / JOBS / job.key)

    @property
    def log(self) -> Path:
        """All that the job's attempts printed."""
        return self.folder / "log"

    @property
    def _slurm(self) -> Path:
        return self.folder / "slurm"

    @property
    def _error(self) -> Path:
        return self.folder / "error"

    @property
    def _attempts(self) -> Path:
        return self.folder / "attempts.jsonl"

    def begin(self, job: Job) -> float:
        """Note that an attempt begins, and return its start; the error of an earlier one is removed."""
        begun = time.time()
        made = Made(job.name, job.script, os.path.relpath(job.folder, self.folder), job.results)
        write_text(self.folder / _MADE, json.dumps(asdict(made), indent=1) + "\n")
        self._error.unlink(missing_ok=True)
        self._note({"begun": begun, "host": socket.gethostname(), "job": asdict(Traits.of(job))})
        return begun

    def end(self, begun: float, status: int, error: str | None) -> None:
        """Note how an attempt ended.

        Args:
            begun: its start, from ``begin``.
            status: its exit status.
            error: its error in one line; None for success.
        """
        ended = {"begun": begun, "seconds": time.time() - begun, "status": status}
        self._note({**ended, "host": socket.gethostname()})
        if error is not None:
            self.fail(error)

    def fail(self, error: str) -> None:
        """Note the error of a job in one line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self._error, f"{error}\n")

    def submitted(self, slurm_job: str) -> None:
        """Note that the job was submitted to SLURM, which gave it this id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self._slurm, f"{slurm_job}\n")

    def slurm_job(self) -> str | None:
        """Return the id that SLURM gave the job when it was last submitted; None if it never was."""
        return _text(self._slurm)

    def made(self) -> Made | None:
        """Return what the job makes; None where the record does not say it."""
        try:
            facts = json.loads((self.folder / _MADE).read_text(encoding="utf-8"))
            made = Made(**facts)
            return replace(made, script=tuple(made.script), results=tuple(made.results))
        except (OSError, ValueError, TypeError):
            return None

    def error(self) -> str | None:
        """Return the error of the last attempt; None if it did not fail."""
        return _text(self._error)

    def attempts(self) -> list[Attempt]:
        """Return all attempts in the order of their starts."""
        attempts: dict[float, Attempt] = {}
        for facts in self._lines():
            begun = facts["begun"]
            attempts[begun] = Attempt(begun, facts.get("seconds"), facts.get("status"), facts["host"])
        return list(attempts.values())

    def measured(self) -> tuple[Traits, float] | None:
        """Return the traits of a job that is done, and how long its attempts took together.

        Returns:
            None for a job that is not done, and where nobody saw the end of an attempt.
        """
        attempts = self.attempts()
        seconds = [attempt.seconds for attempt in attempts if attempt.seconds is not None]
        if not attempts or len(seconds) < len(attempts) or attempts[-1].status != 0 or self.error():
            return None
        described = [facts["job"] for facts in self._lines() if "job" in facts]
        try:
            return Traits(**described[-1]), sum(seconds)
        except (IndexError, TypeError):  # of another version
            return None

    def _note(self, facts: dict[str, object]) -> None:
        with self._attempts.open("a", encoding="utf-8") as file:  # one short line, written at once
            file.write(json.dumps(facts) + "\n")

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self._attempts.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                facts = json.loads(line)
            except ValueError:  # cut short by a crash
                continue
            if isinstance(facts, dict) and {"begun", "host"} <= facts.keys():
                yield facts


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
