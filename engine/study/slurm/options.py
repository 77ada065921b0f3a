"""From the options of a study file to what SLURM is asked for each array of jobs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit import AutoExecutor, SlurmExecutor

import fewseg
from fewseg.engine.study.description.jobs import Job
from fewseg.engine.study.description.study_file import StudyFile
from fewseg.engine.study.slurm.queue import ask_slurm
from fewseg.util.config.nearest_key import nearest
from fewseg.util.errors import ConfigError, shortened

_MINUTES, _SIGNAL, _STARTS = 24 * 60, 120, 100
"""Defaults: minutes that a job may take at a time, seconds before their end at which it is warned, and how
often it may be started anew after their end."""

_NUMBERS = {
    f"slurm_{name}"
    for name in (
        "array_parallelism",
        "cpus_per_task",
        "gpus_per_node",
        "max_num_timeout",
        "nodes",
        "signal_delay_s",
        "time",
        "timeout_min",
    )
}
"""Options that are whole numbers."""

_KINDS: dict[str, tuple[type, str]] = {
    "slurm_setup": (list, "a list of shell lines"),
    "slurm_additional_parameters": (dict, "a mapping of sbatch's options"),
}

_GPUS = {"slurm_gpus_per_node", "slurm_gpus_per_task", "slurm_num_gpus", "slurm_gres"}
"""Options that ask for GPUs."""

_OURS = {"slurm_tasks_per_node", "slurm_ntasks_per_node", "slurm_map_count"}
"""Options that follow from the study."""


def executor_for(study: StudyFile, jobs: Sequence[Job], folder: Path, dependency: str) -> AutoExecutor:
    """Return what submits jobs of one kind.

    Args:
        study: the study, whose ``slurm`` options count.
        jobs: the jobs.
        folder: where submitit writes.
        dependency: what the jobs wait for, as sbatch reads it; empty for nothing.

    Raises:
        ConfigError: submitit refuses the value of an option.
    """
    asked = dict(study.slurm)
    nodes = _nodes(study, jobs[0])
    share = jobs[0].processes // nodes
    starts = asked.pop("slurm_max_num_timeout", _STARTS)
    dependencies = [dependency, asked.pop("slurm_dependency", "")]
    options = {
        "name": f"{study.name}-{jobs[0].kind.value}",
        "timeout_min": _MINUTES,
        "cpus_per_task": share * (1 + max(job.config.Train.workers for job in jobs)),
        "slurm_signal_delay_s": _SIGNAL,
        **_gpus(asked, jobs[0], share),
        **{key: value for key, value in asked.items() if key != "slurm_gpus_per_node"},
        "slurm_nodes": nodes,
        "tasks_per_node": 1,
        "slurm_setup": [*_setup(), *asked.get("slurm_setup", [])],
        "slurm_dependency": ",".join(part for part in dependencies if part) or None,
        "slurm_additional_parameters": {
            "kill_on_invalid_dep": "yes",
            "requeue": True,
            **asked.get("slurm_additional_parameters", {}),
        },
    }
    executor = AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=starts)
    try:
        executor.update_parameters(**options)
    except (AssertionError, NameError, TypeError, ValueError) as failure:
        raise ConfigError(f"{study.path}: slurm: {' '.join(str(failure).split())}") from failure
    return executor


def check_options(study: StudyFile) -> None:
    """Raise ConfigError if an option of a study for SLURM is unknown, or its value is wrong."""
    known = {f"slurm_{name}" for of in (AutoExecutor, SlurmExecutor) for name in of._valid_parameters()}
    known = (known | {"slurm_max_num_timeout"}) - _OURS
    for key, value in study.slurm.items():
        place = f"{study.path}: slurm.{key}"
        if key in _OURS:
            raise ConfigError(f"{place}: follows from processes and slurm_nodes; leave it out")
        if key not in known:
            near = nearest(key, known) or nearest(f"slurm_{key}", known)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"{place}: unknown option of submitit; {hint}")
        if key in _NUMBERS and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            unit = " of minutes" if key in ("slurm_time", "slurm_timeout_min") else ""
            raise ConfigError(f"{place}: must be a whole number{unit}, got {shortened(value)}")
        kind, name = _KINDS.get(key, (object, ""))
        if not isinstance(value, kind):
            raise ConfigError(f"{place}: must be {name}, got {shortened(value)}")
    nodes, processes = study.slurm.get("slurm_nodes", 1), study.processes
    if nodes < 1 or processes % nodes:
        raise ConfigError(
            f"{study.path}: slurm.slurm_nodes: {processes} processes cannot be shared out equally to {nodes} "
            "nodes; change it, or processes"
        )


def _nodes(study: StudyFile, job: Job) -> int:
    """Return the number of nodes of a job: only a training of several processes takes more than one."""
    return int(study.slurm.get("slurm_nodes", 1)) if job.processes > 1 else 1


def _gpus(asked: dict[str, Any], job: Job, share: int) -> dict[str, int]:
    """Return the GPUs per node: one per process where the cluster has any and the study does not say."""
    if "slurm_gpus_per_node" in asked:
        number = asked["slurm_gpus_per_node"] if job.processes > 1 else min(asked["slurm_gpus_per_node"], 1)
    elif _GPUS.intersection(asked):
        return {}
    else:
        number = share if _has_gpus(asked.get("slurm_partition")) else 0
    return {"gpus_per_node": number} if number else {}


def _has_gpus(partition: str | None) -> bool:
    where = [f"--partition={partition}"] if partition else []
    return "gpu" in ask_slurm("sinfo", "--noheader", "--format=%G", *where)


def _setup() -> list[str]:
    """Return shell lines before every job."""
    folder = shlex.quote(str(Path(fewseg.__file__).resolve().parents[1]))
    return [
        f"export PYTHONPATH={folder}${{PYTHONPATH:+:$PYTHONPATH}}",  # the job may have another folder
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",  # from SLURM 22.05 on, srun does not take it over
    ]
