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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import Any
from unittest.mock import patch

import torch

import fewseg.engine.training.loop as loops
import fewseg.engine.training.saving as saving
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import base_evaluation_loader, fold_of, validation_episodes
from fewseg.engine.setup.interrupt import Check
from fewseg.engine.setup.script import run_script
from fewseg.engine.training.loop import TrainingLoop, Validate
from fewseg.engine.training.validate import score_base_learner
from fewseg.util import distributed
from fewseg.util.config import load_config
from fewseg.util.errors import DataError
from fewseg.util.log import start_log
from train import train

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ("tools/launch.py", "--standalone", "--nproc-per-node")
NODE = ("tools/launch.py", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1")

Job = dict[str, Any]
"""What to do: ``config``, ``opts``, and one of these if anything.

- ``stop``: steps until a stop is asked for.
- ``counts``: the file for the counts of a validation, which then is all.
- ``dies``: the number of the process that dies, ``at`` which work, ``how``, and the file for the ``time``.
"""


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
    with without_chance(), stopping(job.get("stop")), dying(**job.get("dies", {})):
        train(config, device)


def launch(job: Job, *launcher: str) -> subprocess.Popen[str]:
    """Start several processes that carry out a job on the CPU."""
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *launcher, __file__, json.dumps(job)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


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
    step, taken = loops.training_step, []

    def counted(*arguments: Any, **options: Any) -> dict[str, float]:
        taken.append(1)
        if len(taken) == steps and distributed.rank() == distributed.world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments, **options)

    with patch.object(loops, "training_step", counted):
        yield


@contextmanager
def dying(rank: int = -1, at: str = "", how: str = "", time: str = "") -> Iterator[None]:
    """Let one process die at some work that it shares with others, which are then in the midst of it."""
    own = distributed.rank() == rank

    def die() -> None:
        sleep(1)
        Path(time).write_text("")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError("a fault in the code") if how == "fault" else DataError("b.png: the image is corrupt")

    def validation_of(*_: object) -> Validate:
        def validate(epoch: float, check: Check) -> tuple[float, dict[str, float]]:
            if own:
                die()
            while True:  # for as long as real data would take
                check()
                sleep(0.1)

        return validate

    def step(*arguments: Any, **options: Any) -> dict[str, float]:
        if own:
            die()
        return training_step(*arguments, **options)  # waits for the gradients of all

    def write_checkpoint(*arguments: Any) -> None:
        if own:
            die()
        sleep(5 if rank else 0)
        saved(*arguments)

    def save_last(loop: TrainingLoop) -> None:
        together(loop)
        if own:
            die()

    training_step, saved, together = loops.training_step, saving.write_checkpoint, TrainingLoop._save_last
    with ExitStack() as stack:
        if at == "validation":
            stack.enter_context(patch("train.validation_of", validation_of))
        if at == "step":
            stack.enter_context(patch.object(loops, "training_step", step))
        if at == "writing":
            stack.enter_context(patch.object(saving, "write_checkpoint", write_checkpoint))
            stack.enter_context(patch.object(TrainingLoop, "_save_last", save_last))
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


def main() -> None:
    """Carry out the job that the command line describes."""
    distributed.start()
    start_log()
    do(json.loads(sys.argv[1]))


if __name__ == "__main__":
    run_script(main)
