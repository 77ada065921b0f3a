"""Several processes train and validate as one does, and a run goes on with another number of them."""

from __future__ import annotations

import json

import pytest
import torch

from fewseg.engine.setup.interrupt import Interrupted
from fewseg.engine.setup.run_folder import BOARD
from fewseg.engine.setup.script import STOPPED
from fewseg.engine.training.snapshot import Snapshot
from tests.engine.event_files import curves
from tests.engine.several_processes import LAUNCH, do, launched

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
        done = launched(job, *LAUNCH, str(processes))
        assert done.returncode == (STOPPED if "stop" in job else 0), done.stderr
        assert done.stdout.count("after epoch 1") == ("stop" not in job and "counts" not in job)
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
