"""Runs that are killed at random moments and resumed end as undisturbed ones do.

``pytest tests/engine/test_kills.py --slow --kills 10`` brings 100 killed runs to their ends: 10 of every
method and way of saving, each killed one to three times. A third of the kills come at any time, the others
are aimed at a step, a validation or the writing of files. The end of the tests' report says where they fell.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewseg.engine.mining.mine import Miner, MiningSettings, write_mined
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.run_folder import BOARD
from fewseg.engine.training.finished import Finished
from fewseg.engine.training.snapshot import BEST, EARLIER, LAST, STATE
from fewseg.util.checkpoint import file_hash
from fewseg.util.config import load_config
from fewseg.util.state_file import load_training_state
from tests.engine.event_files import curves
from tests.engine.killed_runs import KILLS, PHASES, Watched
from train import train

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")

NARROW = ["Method.options.channels", "16"]
MINED = ["auxiliary", "2", "mined_labels", "mined", "Data.protocol_options.min_area", "60"]
RUNS = {
    "pspnet": [],  # stage 1
    "bam": [*NARROW, "SubEpoch_val", "True"],
    "canet": [*NARROW, "Method.options.history", "remembered", "Method.options.history_drop", "0"],  # memory
    "panet": ["workers", "1"],  # its backbone learns
    "mlc-reconstruction": MINED,
}


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
    """Compare weights, state (with the best score) and the curves of all losses and scores."""
    assert not (folder / EARLIER).exists() and not list(folder.glob(".*.part"))
    assert [file_hash(folder / name) for name in (BEST, LAST)] == [
        file_hash(whole / name) for name in (BEST, LAST)
    ]
    assert_same(*(load_training_state(path / STATE) for path in (folder, whole)))
    assert_same(*(curves(path / BOARD) for path in (folder, whole)))
    assert Finished.read(folder).is_same_training(Finished.read(whole))


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
def test_killed_run_ends_the_same(
    config_file, base_weight, mined, tmp_path, request, record_property, arch, minutes
):
    common = ["epochs", "4", "batch_size", "12", "save_freq", "2", "save_minutes", minutes, "resume", "auto"]

    def run(name: str) -> Watched:
        changes = ["arch", arch, *RUNS[arch], *common, "print_freq", "1", "save_path", str(tmp_path / name)]
        config = load_config(config_file, changes)
        return Watched(lambda: train(config, CPU))

    whole = run("whole")
    whole.finish()
    assert all(whole.counts[1:])
    draw, ends, fell = random.Random(arch + minutes), 0, Counter[str]()
    for number in itertools.count():
        if ends == request.config.getoption("--kills"):
            break
        name = f"parts{number}"
        kills = [run(name).kill(whole.any_moment(draw)) for _ in range(draw.choice((1, 1, 2, 3)))]
        run(name).finish()
        assert_same_end(tmp_path / name, tmp_path / "whole")
        fell.update(PHASES[phase] for phase in kills if phase is not None)
        ends += set(kills) != {None}
    record_property(KILLS, {"ends": ends, **fell})
