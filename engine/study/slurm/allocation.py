"""The part of a cluster that SLURM has given a job, and how a job starts on all nodes of it.

Several nodes: the task on the first one alone claims and records the job. It announces to the tasks on the
others, by a file in the folder of the job's record, when to start their share of the processes and how the
job has ended.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fewseg.engine.study.description.jobs import Job
from fewseg.engine.study.running.local import with_cores
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.running.work import command_of
from fewseg.engine.study.slurm.queue import ask_slurm
from fewseg.util.errors import UserError
from fewseg.util.files import write_text

WARNING = signal.SIGUSR2
"""The signal by which SLURM warns of a preemption or of the end of the time; submitit asks for this one."""

_ANNOUNCED = "nodes.json"

_POLL = 0.5
"""Seconds between two looks at what the first node announced."""

_PATIENCE = 60.0
"""Seconds that another node waits for the outcome after its own processes have ended."""

_FIRST_PORT, _PORTS = 20_000, 10_000
"""Ports below those that Linux gives to outgoing connections; the SLURM job's id chooses one."""


@dataclass(frozen=True)
class Allocation:
    """What SLURM says about the job that this process belongs to.

    Attributes:
        job: its number; tasks of an array have different ones.
        restarts: how often it was started anew.
        node: number of this node, 0 for the first.
        nodes: number of nodes.
        cores: number of cores on this node.
        names: the nodes as SLURM writes them, such as ``n[1-2]``.
    """

    job: int
    restarts: int
    node: int
    nodes: int
    cores: int
    names: str

    @classmethod
    def here(cls) -> Allocation:
        """Return the allocation of this process."""

        def number(name: str, default: int) -> int:
            return int(os.environ.get(name, default))

        return cls(
            job=number("SLURM_JOB_ID", 0),
            restarts=number("SLURM_RESTART_COUNT", 0),
            node=number("SLURM_NODEID", 0),
            nodes=number("SLURM_JOB_NUM_NODES", 1),
            cores=number("SLURM_CPUS_PER_TASK", 1),
            names=os.environ.get("SLURM_JOB_NODELIST", ""),
        )

    @property
    def attempt(self) -> str:
        """A name of this start of the job, the same on all its nodes."""
        return f"{self.job}.{self.restarts}"

    def cores_per_process(self, job: Job) -> int:
        """Return the number of cores for each process of a job."""
        return max(1, self.cores * self.nodes // job.processes)

    def environment(self, job: Job) -> dict[str, str]:
        """Return the variables that the command of a job needs."""
        return {"OMP_NUM_THREADS": str(self.cores_per_process(job))}

    def command(self, job: Job, address: str | None = None) -> list[str]:
        """Return the command line of a job on this node.

        Args:
            job: the job.
            address: of the first node, where there are several.
        """
        if address is None:
            command = command_of(job)
        else:
            port = str(_FIRST_PORT + self.job % _PORTS)
            place = ["--nnodes", str(self.nodes), "--node-rank", str(self.node)]
            command = command_of(job, self.nodes, [*place, "--master-addr", address, "--master-port", port])
        return with_cores(command, job, self.cores_per_process(job))

    def address(self) -> str | None:
        """Return the address of the first node, by which the others reach it; None if it is the only one.

        Raises:
            UserError: SLURM does not say it.
        """
        if self.nodes == 1:
            return None
        first = ask_slurm("scontrol", "show", "hostnames", self.names).split()[0]
        said = re.search(r"\bNodeAddr=(\S+)", ask_slurm("scontrol", "show", "node", first))
        if said is None:
            raise UserError(f"scontrol: gives no address of the node {first}; use one node")
        return said[1]

    def announce(self, record: JobRecord, *, address: str | None = None, status: int | None = None) -> None:
        """Tell the other nodes to start their processes, or how the job has ended."""
        if self.nodes > 1:
            said = {"attempt": self.attempt, "address": address, "status": status}
            record.folder.mkdir(parents=True, exist_ok=True)
            write_text(record.folder / _ANNOUNCED, json.dumps(said))

    def follow(self, job: Job, record: JobRecord) -> int:
        """Carry out this node's share of a job as the first node announces it; return the exit status."""
        process: subprocess.Popen[bytes] | None = None
        ended = None
        while True:
            said = self._announced(record)
            if said.get("status") is not None:
                if process is not None and said["status"] != 0:
                    process.terminate()
                return int(said["status"])
            if process is None and said.get("address"):
                process = self._start(job, record, said["address"])
            if process is not None and process.poll() is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > _PATIENCE:
                    return 1
            time.sleep(_POLL)

    def _start(self, job: Job, record: JobRecord, address: str) -> subprocess.Popen[bytes]:
        with (record.folder / f"log.{self.node}").open("ab") as log, without_warning():
            return subprocess.Popen(
                self.command(job, address),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment(job)},
            )

    def _announced(self, record: JobRecord) -> dict[str, Any]:
        try:
            said = json.loads((record.folder / _ANNOUNCED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return said if said.get("attempt") == self.attempt else {}


@contextmanager
def without_warning() -> Iterator[None]:
    """Start processes that ignore the signal by which SLURM warns of a preemption or of the end of the time.

    SLURM sends it to all processes of a job. The task obeys it; one that does not know it would die of it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {WARNING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
