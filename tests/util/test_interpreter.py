"""A script that is started by a Python without the requirements says which one to use."""

from __future__ import annotations

from fewseg.util.interpreter import advice

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("tools/*.py")])
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    and path.name != "mutate.py"  # which must not load what it mutates
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_without_the_requirements_is_refused_in_one_line(script: str, tmp_path: Path) -> None:
    bare = [sys.executable, "-S", "-E", str(ROOT / script), "--help"]  # -S leaves site-packages out
    finished = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith(f"error: this Python ({sys.executable}) lacks torch, numpy")
    assert finished.stderr.count("\n") == 1 and not finished.stdout


def test_the_environment_beside_the_project_is_named_where_it_is(tmp_path: Path) -> None:
    assert "pip install -r" in advice(["torch"], tmp_path) and "quickstart.sh" in advice(["torch"], tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    said = advice(["torch"], tmp_path)
    assert f"use {python}" in said and f"source {python.parent / 'activate'}" in said
