"""Several processes train and validate as one does, and a run goes on with another number of them."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
import torch

from fewseg.engine.setup.interrupt import Interrupted
from fewseg.engine.setup.run_folder import BOARD
from fewseg.engine.setup.script import STOPPED
from fewseg.engine.training.snapshot import Snapshot
from fewseg.util.peers import LOST
from tests.engine.event_files import curves
from tests.engine.several_processes import LAUNCH, NODE, do, launch

STEADY = ["batch_size", "12", "epochs", "1", "optimizer", "sgd", "base_lr", "1e-3", "fix_bn", "True"]
RUNS = {
    "pspnet": [],  # stage 1
    "panet": ["Method.options.align", "False"],  # its backbone learns; the loss that is left has no threshold
    "canet": [  # remembers its predictions
        *("Method.options.channels", "16", "Method.options.history", "remembered"),
        *("Method.options.history_drop", "0"),
    ],
}


def job_of(config_file, arch, folder, **facts):
    opts = ["arch", arch, *RUNS[arch], *STEADY, "print_freq", "1", "save_path", str(folder), "resume", "auto"]
    return {"config": str(config_file), "opts": opts, **facts}


def carry_out(job, processes):
    """Run a job to its end or its stop."""
    if processes > 1:
        together = launch(job, *LAUNCH, str(processes))
        shown, said = together.communicate(timeout=300)
        assert together.returncode == (STOPPED if "stop" in job else 0), said
        assert shown.count("after epoch 1") == ("stop" not in job and "counts" not in job)
    elif "stop" in job:
        with pytest.raises(Interrupted):
            do(job)
    else:
        do(job)


def assert_equal_but_for_rounding(one, other):
    """Compare two runs: weights, what they remember, and all losses and scores."""
    snapshots = [Snapshot.read(folder) for folder in (one, other)]
    assert snapshots[0].progress.step == snapshots[1].progress.step == 0
    remembered = [
        {name: value for memory in snapshot.memories for name, value in memory.items()}
        for snapshot in snapshots
    ]
    for ours, theirs in ([snapshot.model for snapshot in snapshots], remembered):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)
    ours, theirs = (curves(folder / BOARD) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    for point, value in ours.items():
        assert value == pytest.approx(theirs[point], rel=1e-3, abs=1e-5), point


@pytest.mark.parametrize(
    ("arch", "parts"),
    [
        ("panet", [2]),
        pytest.param("pspnet", [2], marks=pytest.mark.slow),
        pytest.param("canet", [2], marks=pytest.mark.slow),
        *(pytest.param(arch, parts, marks=pytest.mark.slow) for arch in RUNS for parts in ([2, 1], [1, 2])),
    ],
)
def test_processes_end_as_one_does(config_file, base_weight, tmp_path, arch, parts):
    carry_out(job_of(config_file, arch, tmp_path / "one"), 1)
    for processes in parts[:-1]:
        carry_out(job_of(config_file, arch, tmp_path / "parts", stop=2), processes)
    carry_out(job_of(config_file, arch, tmp_path / "parts"), parts[-1])
    assert_equal_but_for_rounding(tmp_path / "parts", tmp_path / "one")


@pytest.mark.slow
def test_processes_accumulate_as_one_takes_the_whole_batch(config_file, base_weight, tmp_path):
    carry_out(job_of(config_file, "panet", tmp_path / "one"), 1)
    job = job_of(config_file, "panet", tmp_path / "parts")
    job["opts"] += ["accumulate", "3"]
    carry_out(job, 2)
    assert_equal_but_for_rounding(tmp_path / "parts", tmp_path / "one")


@pytest.mark.parametrize(
    ("arch", "processes"),
    [
        pytest.param(arch, processes, marks=pytest.mark.slow)
        for arch in ("pspnet", "panet")
        for processes in (2, 4)
    ],
)
def test_validation_has_the_same_episodes_and_counts(config_file, tmp_path, arch, processes):
    files = {number: tmp_path / f"{number}.json" for number in (1, processes)}
    for number, file in files.items():
        job = job_of(config_file, arch, tmp_path / "run", counts=str(file))
        job["opts"] += ["val_episodes", "21"]
        carry_out(job, number)
    one, several = (json.loads(file.read_text()) for file in files.values())
    assert one == several and torch.tensor(one["counts"][-1]).any()
    assert len(one["episodes"]) == (21 if arch == "panet" else 0)


LINES = {
    "killed": (137, "error: process {} was ended by SIGKILL"),
    "fault": (1, "error: process {} ended with status 1; the reason stands above or on another machine"),
    "data": (2, "error: b.png: the image is corrupt"),
}


def assert_ends(launcher, dies, status, line):
    """Wait for the end of a launcher, which must follow the death of a process within a minute."""
    shown, said = launcher.communicate(timeout=300)
    ended = time.time()
    lines = [text for text in said.splitlines() if "[Gloo]" not in text]
    assert (launcher.returncode, lines[-1]) == (status, line), said
    assert ended - Path(dies["time"]).stat().st_mtime < 60
    return shown, said


@pytest.mark.parametrize(
    ("rank", "at", "how"),
    [
        pytest.param(1, "validation", "killed", marks=pytest.mark.slow),
        pytest.param(0, "validation", "data", marks=pytest.mark.slow),
        pytest.param(1, "validation", "fault", marks=pytest.mark.slow),
        pytest.param(0, "step", "killed", marks=pytest.mark.slow),
        pytest.param(1, "step", "data", marks=pytest.mark.slow),
        pytest.param(1, "step", "fault", marks=pytest.mark.slow),
        pytest.param(0, "writing", "killed", marks=pytest.mark.slow),
        pytest.param(1, "writing", "killed", marks=pytest.mark.slow),
        pytest.param(1, "writing", "data", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_dies_ends_the_other_with_its_error(config_file, base_weight, tmp_path, rank, at, how):
    dies = {"rank": rank, "at": at, "how": how, "time": str(tmp_path / "time")}
    job = job_of(config_file, "panet", tmp_path / "run", dies=dies)
    job["opts"] += ["save_minutes", "1e-9"]
    status, line = LINES[how]
    shown, said = assert_ends(launch(job, *LAUNCH, "2"), dies, status, line.format(rank))
    assert said.count("Traceback") == (how == "fault")
    if (rank, at) == (1, "validation"):
        assert "in epoch 1, step 4; go on with --opts resume" in shown + said


def on_two_nodes(job):
    """Start a launcher for each of two machines, which here are one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [launch(job, *NODE, "--master-port", port, "--node-rank", str(node)) for node in (0, 1)]


@pytest.mark.slow
def test_two_nodes_end_as_one_process_does(config_file, base_weight, tmp_path):
    carry_out(job_of(config_file, "panet", tmp_path / "one"), 1)
    for launcher in on_two_nodes(job_of(config_file, "panet", tmp_path / "two")):
        _, said = launcher.communicate(timeout=300)
        assert launcher.returncode == 0, said
    assert_equal_but_for_rounding(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "at", "how"),
    [
        *((rank, "validation", how) for rank in (0, 1) for how in ("killed", "data")),
        (1, "step", "killed"),
        (0, "step", "data"),
        (0, "writing", "killed"),
    ],
)
def test_a_process_that_dies_ends_the_launcher_of_the_other_node(
    config_file, base_weight, tmp_path, rank, at, how
):
    dies = {"rank": rank, "at": at, "how": how, "time": str(tmp_path / "time")}
    job = job_of(config_file, "panet", tmp_path / "run", dies=dies)
    job["opts"] += ["save_minutes", "1e-9", "workers", "1"]  # workers outlive a killed process for seconds
    launchers = on_two_nodes(job)
    status, line = LINES[how]
    assert_ends(launchers[rank], dies, status, line.format(rank))
    cause = f"process {rank} had ended; the reason stands where that one ran"
    assert_ends(launchers[1 - rank], dies, LOST, f"error: process {1 - rank} ended because {cause}")
