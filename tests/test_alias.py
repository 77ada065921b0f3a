"""The packages under their two names in a checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ONE_OBJECT = """
import sys
import {first}
import {second}
assert sys.modules["{first}"] is sys.modules["{second}"]
names = {{name.removeprefix("fewseg.") for name in sys.modules}}
for name in names & set(sys.modules):
    if name.split(".")[0] in ("model", "dataset", "engine", "util"):
        assert sys.modules[name] is sys.modules["fewseg." + name], name
"""


@pytest.mark.parametrize(
    "module", ["model", "model.contract", "util.config", "dataset.lists.image_lists", "engine"]
)
@pytest.mark.parametrize("short_first", [True, False])
def test_short_and_full_name_are_one_module(module: str, short_first: bool) -> None:
    names = (module, f"fewseg.{module}") if short_first else (f"fewseg.{module}", module)
    code = ONE_OBJECT.format(first=names[0], second=names[1])
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_foreign_package_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "util").mkdir()
    (tmp_path / "util" / "__init__.py").write_text("")
    (tmp_path / "util" / "config.py").write_text("own = True")
    code = f"import sys; sys.path.append({str(ROOT)!r}); import fewseg.util.config, model, util.config as own"
    code += "; assert own.own"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_names_of_published_scripts_are_importable() -> None:
    code = """
from model import create_adapter, create_base_learner, create_model, list_models
from model.interface import Episode, Prediction
from model.published import load_published
from util.config import load_config
import fewseg.model.checkpoint.published as here
import fewseg.model.episode as episode
assert load_published is here.load_published and Episode is episode.Episode
assert "bam" in list_models()
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
