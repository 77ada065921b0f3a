"""The loader benchmark: both chains load the same thing."""

from __future__ import annotations

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from tools.benchmark import main
from tools.benchmarks.loader import compare_loaders, draw_photographs


def test_both_chains_load_the_same_pixels(tmp_path):
    draw_photographs(tmp_path / "photographs", images=12, classes=6)
    protocol = load_protocol("bam", novel_in_train="background", small_classes="leave_out", min_area=1)
    fold = open_fold("pascal", tmp_path / "photographs", 3, protocol)
    found = compare_loaders(fold, items=4, size=97, rounds=1)
    assert found["difference"] < 5e-6
    assert found["images"] > 0
    assert found["plain"] > 0 and found["ratio"] == found["ours"] / found["plain"]


def test_rates_are_printed_beside_what_a_network_takes(tmp_path, capsys):
    draw_photographs(tmp_path / "photographs", images=24, classes=6)
    small = ["--size", "33", "--rounds", "1", "--items", "4", "--backbone", "resnet18"]
    main(["loader", "--root", str(tmp_path / "photographs"), *small])
    out = capsys.readouterr().out
    assert "images/s" in out and "times as many" in out
    assert [line.split(",")[0] for line in out.splitlines() if " processes can load" in line] == [
        "training",
        "encoding",
    ]
