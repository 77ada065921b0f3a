"""The command that prepares a data set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.prepare_data import main

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


def test_preparation_does_not_wait_for_torch():
    code = "import sys, tools.prepare_data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
