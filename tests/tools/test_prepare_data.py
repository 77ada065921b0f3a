"""The command that prepares a data set."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fewseg.util.config import load_config
from tests.dataset.prepare.cdfss_sources import lesions, lungs, tiles
from tools.prepare_data import ROOTS, main

CONFIG = Path(__file__).parents[2] / "config"
METHOD = ["Method.arch", "hsnet"]
SMALL = ("--images", "4", "--size", "64", "--workers", "0")


def test_shapes_is_drawn_then_reused(tmp_path, capsys):
    root = tmp_path / "deep" / "shapes"
    assert main(["shapes", "--root", str(root), *SMALL]) == 0
    assert "drawn" in capsys.readouterr().out
    assert len(list((root / "JPEGImages").iterdir())) == 4
    assert main(["shapes", "--root", str(root), *SMALL]) == 0
    assert "already there" in capsys.readouterr().out


def test_a_mistake_is_one_line_and_status_2(tmp_path, capsys):
    main(["shapes", "--root", str(tmp_path / "shapes"), *SMALL])
    capsys.readouterr()
    assert main(["shapes", "--root", str(tmp_path / "shapes"), *SMALL, "--seed", "5"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "other settings" in message


@pytest.mark.parametrize("data_set", ["deepglobe", "isic", "chest-xray"])
def test_a_data_set_of_cdfss_is_prepared_where_its_config_looks(data_set, tmp_path, capsys):
    name = data_set.replace("-", "_")
    assert ROOTS[data_set] == load_config(CONFIG / f"_base_/dataset/{name}.yaml", METHOD).Data.data_root
    assert main([data_set]) == 2
    assert "by --source" in capsys.readouterr().err
    draw = {"isic": partial(lesions, classes={"1": ["a", "b"]}, nested=True), "chest-xray": lungs}
    source = draw.get(data_set, tiles)(tmp_path / "source")
    root = ["--root", str(tmp_path / "root")]
    assert main([data_set, "--source", str(source), *root, "--workers", "0"]) == 0
    assert main([data_set, *root, "--verify", "--workers", "0"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_preparation_does_not_wait_for_torch():
    code = "import sys, tools.prepare_data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
