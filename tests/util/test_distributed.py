"""Alone, the helpers do the obvious; started by torchrun, they add up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from fewseg.util import distributed

ROOT = Path(__file__).resolve().parents[2]

WORKER = """
import torch
from fewseg.util import distributed
from fewseg.util.metrics import Counts, IoUMeter

device = distributed.start()
meter = IoUMeter(2)
one = torch.tensor([1, 1 << 40])
meter.add(Counts(one, one + distributed.rank(), one))
total = distributed.all_sum(meter.counts)
assert meter.counts[0].tolist() == [1, 1 << 40], "the input must stay as it is"
assert total[0].tolist() == [2, 1 << 41] and total[1].tolist() == [3, (1 << 41) + 1], total
assert distributed.from_main({"rank": distributed.rank()}) == {"rank": 0}
assert distributed.gather(distributed.rank()) == [0, 1]
assert distributed.is_main() == (distributed.rank() == 0)
distributed.gather(None)  # no process leaves while another one waits for it
distributed.stop()
"""


def test_alone() -> None:
    counts = torch.tensor([1, 2])
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.all_sum(counts) is counts
    assert distributed.from_main("a") == "a"
    assert distributed.gather(3) == [3]


def test_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{WORKER}")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
