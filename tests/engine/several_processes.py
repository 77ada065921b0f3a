"""Train or validate as one of several processes, ``launch.py ... several_processes.py``, or as the only one.

Nothing is drawn inside a step, and BatchNorm keeps its statistics, so that the number of processes changes no
more than the order of sums.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import fewseg.engine.training.loop as training_loop
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import base_evaluation_loader, fold_of, validation_episodes
from fewseg.engine.setup.script import run_script
from fewseg.engine.training.validate import score_base_learner
from fewseg.util import distributed
from fewseg.util.config import load_config
from train import train

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ("tools/launch.py", "--standalone", "--nproc-per-node")

Job = dict[str, Any]
"""What to do: ``config``, ``opts``, and ``stop`` (steps until a stop is asked for) or ``counts`` (a file)."""


def do(job: Job) -> None:
    """Carry out a job in this process, together with the others that were started with it."""
    device = distributed.start()
    torch.set_num_threads(1)
    config = load_config(job["config"], job["opts"])
    if "counts" in job:
        facts = _counted(config)
        if distributed.is_main():
            Path(job["counts"]).write_text(json.dumps(facts))
        return
    with without_chance(), stopping(job.get("stop")):
        train(config, device)


def launched(job: Job, *launcher: str) -> subprocess.CompletedProcess[str]:
    """Carry out a job in several processes."""
    return subprocess.run(
        [sys.executable, *launcher, __file__, json.dumps(job)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Return the environment of processes that compute on the CPU with one thread each."""
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **variables}


@contextmanager
def without_chance() -> Iterator[None]:
    """Draw nothing inside a step: the draws of a process are its own."""

    def unchanged(module: torch.nn.Module, value: torch.Tensor) -> torch.Tensor:
        return value

    with patch("torch.nn.Dropout.forward", unchanged), patch("torch.nn.Dropout2d.forward", unchanged):
        yield


@contextmanager
def stopping(steps: int | None) -> Iterator[None]:
    """Ask the last process to stop after so many steps."""
    step, taken = training_loop.training_step, []

    def counted(*arguments: Any, **options: Any) -> dict[str, float]:
        taken.append(1)
        if len(taken) == steps and distributed.rank() == distributed.world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments, **options)

    with patch.object(training_loop, "training_step", counted):
        yield


def _counted(config: Any) -> dict[str, Any]:
    """Return the counts of a validation of random weights, and the episodes of every process."""
    torch.manual_seed(5)
    fold = fold_of(config)
    network = build_network(config, fold.classes)
    seen: list[str] = []
    if config.Method.arch == "pspnet":
        counts = score_base_learner(network, base_evaluation_loader(config, fold)).counts.tolist()
    else:
        episodes = validation_episodes(config, fold.for_selection(), 1)
        (scores,) = evaluate(network, episodes, observe=lambda planned, _: seen.append(str(planned.spec)))
        counts = [part.tolist() for part in (*scores.episodes.values(), scores.meter("final").counts)]
    return {"counts": counts, "episodes": sorted(spec for own in distributed.gather(seen) for spec in own)}


if __name__ == "__main__":
    run_script(partial(do, json.loads(sys.argv[1])))
