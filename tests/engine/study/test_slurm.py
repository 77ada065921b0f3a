"""A study on a SLURM cluster: arrays that wait for each other, and jobs that go on after every kind of end.

The jobs are a small script that counts to three, and keeps how far it came as ``train.py`` does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from fewseg.engine.setup.run_path import run_key
from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.description.study_file import StudyFile
from fewseg.engine.study.running.claim import owner_of
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.running.state import State, states_of
from fewseg.engine.study.slurm.queue import read_queue
from fewseg.util.config import load_config

from .conftest import ROOT

SECONDS = 90
"""Time in which a small job surely starts and ends, also on a busy machine."""


@cache
def why_not() -> str:
    """Return why nothing can be submitted here; empty if it can."""
    if shutil.which("sbatch") is None:
        return "sbatch is not installed"
    asked = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, timeout=60)
    return "" if "idle" in asked.stdout else "no node of a SLURM cluster is idle"


pytestmark = pytest.mark.slurm

STUB = """
import json, os, signal, sys, time
from pathlib import Path

folder, key = Path(sys.argv[1]), sys.argv[2]
rank = os.environ.get("RANK", "0")
folder.mkdir(parents=True, exist_ok=True)
if (folder / "broken").exists():
    sys.exit("error: no data; add some")
state = folder / f"count{rank}"

def stop(number, frame):
    print("stopped by", signal.Signals(number).name)
    sys.exit(130)

signal.signal(signal.SIGTERM, stop)
(folder / "pid").write_text(str(os.getpid()))
with (folder / f"starts{rank}").open("a") as starts:
    facts = [os.environ.get(name) for name in ("SLURM_NODEID", "OMP_NUM_THREADS", "WORLD_SIZE")]
    starts.write(" ".join(map(str, facts)) + "\\n")
count = int(state.read_text()) if state.exists() else 0
while count < 3 or (folder / "slow").exists():
    time.sleep(0.1)
    count += 1
    state.write_text(str(count))
if rank == "0":
    facts = dict(key=key, base_learner=None, mined_labels=None, epochs=1, best_score=None, best_epoch=0,
                 weights={"best.safetensors": "0" * 64}, parameters=1, seconds_a_step=None, peak_gib=0.1,
                 processes=1, versions={})
    (folder / "finished.json").write_text(json.dumps(facts))
"""


TINY = """
config: {root}/config/shapes/panet_resnet18.yaml
grid: {{fold: [0], shot: [1], seed: [1, 2]}}
folder: {folder}
opts: {{data_root: {data}, train_list: {lists}, val_list: {lists}, train_h: 65, train_w: 65, val_size: 65,
        epochs: 1, batch_size: 4, workers: 0, val_episodes: 4, episodes: 8, seeds: [1], panels: 0,
        Method.base_weight: null, Method.backbone_options: {{width: 8, stem: deep}}}}
slurm: {{slurm_cpus_per_task: 1}}
"""


class Cluster:
    """A study of stub jobs, and what to do to them on the cluster."""

    def __init__(self, root: Path, **study: object) -> None:
        self.root = root
        self.study = StudyFile(path=root / "stub.yaml", config="-", grid={}, folder=str(root), **study)
        self._config = load_config(ROOT / "config/pascal/pspnet_resnet50.yaml", ["workers", "0"])
        self._jobs: dict[str, Job] = {}

    def add(self, key: str, needs: tuple[str, ...] = (), kind: Kind = Kind.TRAIN, processes: int = 1) -> str:
        script = self.root / "stub.py"
        script.write_text(STUB)
        folder = self.root / "runs" / key
        command = (str(script), str(folder), run_key(self._config))
        self._jobs[key] = Job(key, kind, f"stub {key}", command, self._config, folder, needs, processes)
        folder.mkdir(parents=True, exist_ok=True)
        return key

    @property
    def jobs(self) -> StudyJobs:
        return StudyJobs(self.study, self._jobs, [])

    def submit(self) -> None:
        from fewseg.engine.study.slurm.submit import run_slurm

        assert run_slurm(self.jobs, wait=False) == {}

    def run(self) -> dict[str, str]:
        from fewseg.engine.study.slurm.submit import run_slurm

        return run_slurm(self.jobs, wait=True)

    def record(self, key: str) -> JobRecord:
        return JobRecord.of(self.root, self._jobs[key])

    def state(self, key: str) -> State:
        return states_of(self.jobs)[key]

    def starts(self, key: str, rank: int = 0) -> list[str]:
        try:
            return (self.root / "runs" / key / f"starts{rank}").read_text().splitlines()
        except OSError:
            return []

    def until(self, key: str, *wanted: State) -> None:
        self.until_true(lambda: self.state(key) in wanted, f"{key} is not {wanted}")

    def until_counting(self, key: str, starts: int = 1) -> None:
        self.until_true(lambda: len(self.starts(key)) == starts, f"{key} has not started")

    def until_true(self, condition: Callable[[], bool], failure: str) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"{failure}: {self.logs()}"
            time.sleep(0.5)

    def mark(self, key: str, name: str, wanted: bool = True) -> None:
        path = self.root / "runs" / key / name
        path.touch() if wanted else path.unlink()

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.root.glob("slurm/*.err"))

    def scancel(self, key: str, *options: str) -> None:
        subprocess.run(["scancel", *options, str(self.record(key).slurm_job())], check=True)

    def hurried(self, key: str) -> State:
        """Return the state of a job; one that is started anew need not wait for the usual two minutes."""
        number = str(self.record(key).slurm_job())
        if (queued := read_queue().get(number)) and queued.reason == "BeginTime":
            subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=False)
        return self.state(key)

    def end(self) -> None:
        """Leave nothing in the queue."""
        for key in self._jobs:
            if self.record(key).slurm_job():
                subprocess.run(["scancel", "--quiet", str(self.record(key).slurm_job())], check=False)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    reason = why_not()
    if reason:
        pytest.skip(f"{reason}; start a cluster to run the tests of --on slurm")
    made: list[Cluster] = []

    def make(**study: object) -> Cluster:
        made.append(
            Cluster(
                tmp_path, slurm={"slurm_cpus_per_task": 1, "slurm_time": 30} | study.pop("slurm", {}), **study
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_failed_job_keeps_only_its_dependents_back(cluster) -> None:
    study = cluster()
    base = study.add("base", kind=Kind.BASE)
    good, bad = study.add("good", (base,)), study.add("bad", (base,))
    after_bad = study.add("after_bad", (base, bad))
    study.mark(bad, "broken")
    assert study.run() == {bad: "no data; add some"}
    states = {base: State.DONE, good: State.DONE, bad: State.FAILED, after_bad: State.WAITING}
    assert states_of(study.jobs) == states
    assert study.record(good).slurm_job().partition("_")[0] == study.record(bad).slurm_job().partition("_")[0]
    study.mark(bad, "broken", False)
    assert study.run() == {}
    assert {*states_of(study.jobs).values()} == {State.DONE}
    assert [len(study.starts(key)) for key in (base, good, bad, after_bad)] == [1, 1, 1, 1]


def test_what_is_queued_is_not_submitted_again(cluster) -> None:
    study = cluster()
    base = study.add("base", kind=Kind.BASE)
    train = study.add("train", (base,))
    study.mark(base, "slow")
    study.submit()
    numbers = [study.record(key).slurm_job() for key in (base, train)]
    assert study.state(train) is State.QUEUED
    study.until_counting(base)
    assert owner_of(study.record(base).folder)["slurm_job"] == numbers[0]
    study.submit()
    other = study.add("other", (base,))
    study.submit()
    assert [study.record(key).slurm_job() for key in (base, train)] == numbers
    study.mark(base, "slow", False)
    assert study.run() == {}
    assert study.state(other) is State.DONE
    assert len(study.starts(base)) == len(study.starts(train)) == 1


def test_warned_job_is_started_anew_and_goes_on(cluster) -> None:
    study = cluster()
    job = study.add("job")
    study.mark(job, "slow")
    study.submit()
    study.until_counting(job)
    number = study.record(job).slurm_job()
    study.scancel(job, "--signal=USR2")
    study.until_true(lambda: study.record(job).attempts()[0].status is not None, "not stopped")
    count = int((study.root / "runs/job/count0").read_text())
    assert study.record(job).error() is None
    assert "stopped by SIGTERM" in study.record(job).log.read_text()
    study.until(job, State.QUEUED)
    study.mark(job, "slow", False)
    study.until_true(lambda: study.hurried(job) is State.DONE, "not done")
    study.until_true(lambda: study.record(job).attempts()[-1].status is not None, "not ended")
    assert [attempt.status for attempt in study.record(job).attempts()] == [130, 0]
    assert study.record(job).slurm_job() == number
    assert int((study.root / "runs/job/count0").read_text()) == max(3, count)


def test_cancelled_and_killed_jobs_go_on_when_the_study_runs_again(cluster) -> None:
    study = cluster()
    keys = cancelled, killed = study.add("cancelled"), study.add("killed")
    for key in keys:
        study.mark(key, "slow")
    study.submit()
    for key in keys:
        study.until_counting(key)
    study.scancel(cancelled)
    os.kill(int((study.root / "runs/killed/pid").read_text()), signal.SIGKILL)
    study.until(cancelled, State.FAILED)
    study.until(killed, State.FAILED)
    assert study.record(cancelled).error() == "stopped by SIGTERM"
    assert study.record(killed).error().startswith("ended by SIGKILL")
    for key in keys:
        study.mark(key, "slow", False)
    assert study.run() == {}
    assert [len(study.starts(key)) for key in keys] == [2, 2]


def test_processes_are_shared_out_to_the_nodes(cluster) -> None:
    study = cluster(processes=2, slurm={"slurm_nodes": 2})
    job = study.add("job", processes=2)
    assert study.run() == {}
    assert [study.starts(job, rank) for rank in (0, 1)] == [["0 1 2"], ["1 1 2"]]


@pytest.mark.slow
def test_study_gives_the_same_on_the_cluster_as_on_this_machine(
    cluster, shapes: Path, tmp_path: Path
) -> None:
    cluster()  # skips where there is none
    lists = shapes / "ImageSets/Segmentation/train.txt"
    printed = []
    cores = str(len(os.sched_getaffinity(0)))  # as slots: each job has one thread, as on the cluster
    for place in ("local", "slurm"):
        file = tmp_path / place / "small.yaml"
        file.parent.mkdir()
        file.write_text(TINY.format(root=ROOT, folder=tmp_path / place / "exp", data=shapes, lists=lists))
        command = [sys.executable, "study.py", "run", str(file), "--on", place, "--slots", cores]
        subprocess.run(command, cwd=ROOT, check=True, timeout=500)
        table = [sys.executable, "study.py", "table", str(file)]
        printed.append(subprocess.run(table, cwd=ROOT, check=True, timeout=100, capture_output=True).stdout)
    assert printed[0] == printed[1]
    assert b"1-shot" in printed[0]
