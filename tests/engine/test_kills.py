"""Runs that are killed at random moments and resumed end as undisturbed ones do.

``pytest tests/engine/test_kills.py --slow --kills 25`` kills every method 25 times; a few times by default.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewseg.engine.mining.mine import Miner, MiningSettings, write_mined
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.training.snapshot import BEST, EARLIER, LAST, STATE
from fewseg.util.checkpoint import file_hash
from fewseg.util.config import load_config
from fewseg.util.state_file import load_training_state
from train import train

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")

NARROW = ["Method.options.channels", "16"]
MINED = ["auxiliary", "2", "mined_labels", "mined", "Data.protocol_options.min_area", "60"]
RUNS = {
    "pspnet": [],
    "bam": [*NARROW, "SubEpoch_val", "True"],
    "canet": [*NARROW, "Method.options.history", "remembered", "Method.options.history_drop", "0"],
    "panet": [],
    "mlc-reconstruction": MINED,
}


def in_a_process(work: Callable[[], object]) -> int:
    """Run ``work`` in a process of its own; return its id. A fork saves the seconds of loading torch."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        work()
        status = 0
    except Exception as failure:
        sys.stderr.write(f"{failure}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def finish(child: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def killed(child: int, after: float) -> bool:
    """Kill a process after so many seconds; return whether it still ran."""
    time.sleep(after)
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        assert os.waitstatus_to_exitcode(status) == 0
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def assert_same(one: object, other: object) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


def assert_same_end(folder: Path, whole: Path) -> None:
    assert not (folder / EARLIER).exists()
    assert [file_hash(folder / name) for name in (BEST, LAST)] == [
        file_hash(whole / name) for name in (BEST, LAST)
    ]
    one, other = (load_training_state(path / STATE) for path in (folder, whole))
    assert_same(one["optimizer"]["state"], other["optimizer"]["state"])
    for key in ("model", "memories", "progress", "best"):
        assert_same(one[key], other[key])


@pytest.fixture
def mined(config_file, tmp_path, monkeypatch):
    """Mine labels with a random network, where a method learns from such."""
    monkeypatch.chdir(tmp_path)
    config = load_config(config_file, ["arch", "mlc", *MINED[-2:]])
    fold = fold_of(config)
    miner = Miner(build_network(config, fold.classes), fold, 1, MiningSettings(clusters=6))
    write_mined(miner, tmp_path / "mined", {"data_set": "shapes", "fold": 0})


@pytest.mark.parametrize("minutes", ["1e-9", "null"], ids=["saving always", "saving rarely"])
@pytest.mark.parametrize("arch", RUNS)
def test_killed_run_ends_the_same(config_file, base_weight, mined, tmp_path, request, arch, minutes):
    common = ["epochs", "4", "batch_size", "12", "save_freq", "2", "save_minutes", minutes, "resume", "auto"]

    def started(name: str) -> int:
        folder = ["save_path", str(tmp_path / name)]
        config = load_config(config_file, ["arch", arch, *RUNS[arch], *common, *folder])
        return in_a_process(lambda: train(config, CPU))

    begin = time.monotonic()
    finish(started("whole"))
    seconds = time.monotonic() - begin
    draw, kills, number = random.Random(arch + minutes), 0, 0
    while kills < request.config.getoption("--kills"):
        if killed(started(f"parts{number}"), draw.uniform(0, seconds)):
            kills += 1
        else:
            assert_same_end(tmp_path / f"parts{number}", tmp_path / "whole")
            number += 1
    finish(started(f"parts{number}"))
    assert_same_end(tmp_path / f"parts{number}", tmp_path / "whole")
