"""The options of a study for SLURM: mistakes are one line, and what is not said has a sensible value."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fewseg.engine.study.description.study_file import StudyFile
from fewseg.engine.study.slurm.options import check_options, executor_for
from fewseg.util.errors import ConfigError


def study(**facts: object) -> StudyFile:
    return StudyFile(path=Path("table.yaml"), config="-", grid={}, **facts)


@pytest.mark.parametrize(
    ("slurm", "processes", "message"),
    [
        (
            {"slurm_partitoin": "gpu"},
            1,
            "slurm.slurm_partitoin: unknown option of submitit; did you mean slurm_",
        ),
        (
            {"partition": "gpu"},
            1,
            "slurm.partition: unknown option of submitit; did you mean slurm_partition?",
        ),
        (
            {"slurm_time": "24:00:00"},
            1,
            "slurm.slurm_time: must be a whole number of minutes, got '24:00:00'",
        ),
        ({"slurm_cpus_per_task": 1.5}, 1, "slurm.slurm_cpus_per_task: must be a whole number, got 1.5"),
        (
            {"slurm_setup": "module load x"},
            1,
            "slurm.slurm_setup: must be a list of shell lines, got 'module",
        ),
        (
            {"slurm_ntasks_per_node": 2},
            1,
            "slurm.slurm_ntasks_per_node: follows from processes and slurm_nodes",
        ),
        ({"slurm_nodes": 2}, 3, "slurm.slurm_nodes: 3 processes cannot be shared out equally to 2 nodes"),
        ({"slurm_nodes": 0}, 1, "slurm.slurm_nodes: 1 processes cannot be shared out equally to 0 nodes"),
    ],
)
def test_mistake_is_one_line(slurm, processes: int, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_options(study(slurm=slurm, processes=processes))
    assert str(refused.value).startswith(f"table.yaml: {message}")
    assert "\n" not in str(refused.value)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what pretends to be a cluster whose nodes have these GPUs, or ``(null)``."""

    def pretend(gpus: str) -> None:
        for name, line in (("srun", "true"), ("sinfo", f"echo '{gpus}'")):
            program = tmp_path / name
            program.write_text(f"#!{shutil.which('sh')}\n{line}\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return pretend


def asked(study: StudyFile, *jobs: object, dependency: str = "") -> dict[str, object]:
    return executor_for(study, jobs, Path("slurm"), dependency)._executor.parameters


def test_defaults_follow_from_the_jobs(cluster, stub) -> None:
    cluster("(null)")
    found = asked(study(), stub(), dependency="afterok:7")
    assert (found["time"], found["nodes"], found["ntasks_per_node"]) == (24 * 60, 1, 1)
    assert found["cpus_per_task"] == 1 + stub().config.Train.workers
    assert found["dependency"] == "afterok:7"
    assert found["job_name"] == "table-base"
    assert found["additional_parameters"] == {"kill_on_invalid_dep": "yes", "requeue": True}
    assert "gpus_per_node" not in found


def test_options_of_the_study_come_first(cluster, stub) -> None:
    cluster("(null)")
    options = {
        **{
            "slurm_time": 60,
            "slurm_cpus_per_task": 3,
            "slurm_partition": "long",
            "slurm_setup": ["module load x"],
        },
        **{"slurm_dependency": "singleton", "slurm_additional_parameters": {"requeue": False}},
    }
    found = asked(study(slurm=options), stub(), dependency="afterok:7")
    assert (found["time"], found["cpus_per_task"], found["partition"]) == (60, 3, "long")
    assert found["setup"][-1] == "module load x" and len(found["setup"]) > 1
    assert found["dependency"] == "afterok:7,singleton"
    assert found["additional_parameters"]["requeue"] is False


@pytest.mark.parametrize(
    ("slurm", "processes", "expected"),
    [
        ({}, 1, 1),
        ({}, 4, 4),
        ({"slurm_nodes": 2}, 4, 2),
        ({"slurm_gpus_per_node": 8}, 4, 8),
        ({"slurm_gpus_per_node": 8}, 1, 1),
        ({"slurm_gpus_per_node": 0}, 1, None),
        ({"slurm_gres": "gpu:a100:1"}, 1, None),
    ],
)
def test_every_process_has_a_gpu_where_there_are_any(cluster, stub, slurm, processes, expected) -> None:
    cluster("gpu:a100:8")
    found = asked(study(slurm=slurm), stub(processes=processes))
    assert found.get("gpus_per_node") == expected
