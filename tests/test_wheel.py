"""The wheel: installed into an empty folder, it is one package that needs no checkout."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

import fewseg

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("fewseg", "model", "dataset", "engine", "util", "config", "lists")
FILES = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")
ELSEWHERE = """
import pkgutil
import sys
from pathlib import Path

import fewseg
from fewseg.dataset.prepare.shipped_lists import PASCAL_COUNTS
from fewseg.model import create_model
from fewseg.util.config import load_config
from fewseg.engine.setup.run_path import shipped_config

for module in pkgutil.walk_packages(fewseg.__path__, "fewseg."):
    if not module.name.startswith(("fewseg.config", "fewseg.lists")):
        __import__(module.name)
folder = Path(fewseg.__file__).parent
outside = [m.__file__ for n, m in sys.modules.items() if n.startswith("fewseg.") and m.__file__]
assert all(Path(file).is_relative_to(folder) for file in outside), outside
assert not {"model", "dataset", "engine", "util"} & set(sys.modules)
model = create_model("pfenet", backbone="resnet18", shot=1, base_classes=15, image_size=65)
assert sum(weight.numel() for weight in model.parameters()) > 1e6
assert PASCAL_COUNTS.is_file()
file = folder / "config" / "shapes" / "bam_resnet18.yaml"
config = load_config(file)
assert shipped_config(config) == config
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout was installed, and nothing else."""
    pytest.importorskip("setuptools", "77", reason="no build backend: pip install -r requirements-dev.txt")
    work = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, work / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, work / "source" / name)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "wheels", "./source"], work)
    (wheel,) = (work / "wheels").iterdir()
    run([*pip, "install", "--no-deps", "--no-index", "--target", "installed", str(wheel)], work)
    return work / "installed"


def run(command: list[str], folder: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_wheel_is_one_package_with_all_modules(installed: Path) -> None:
    assert {path.name for path in installed.iterdir()} == {"fewseg", f"fewseg-{fewseg.__version__}.dist-info"}
    for name in SOURCES[1:]:
        for path in (ROOT / name).rglob("*"):
            if path.suffix in (".py", ".yaml") or path.name in ("classes.txt", "counts.json"):
                assert (installed / "fewseg" / path.relative_to(ROOT)).is_file(), path


def test_what_the_wheel_says_of_itself(installed: Path) -> None:
    (folder,) = installed.glob("*.dist-info")
    wheel = PathDistribution(folder)
    assert wheel.version == fewseg.__version__
    needed = {re.split("[<>=]", line)[0] for line in wheel.requires or []}
    assert {"torch", "numpy", "pydantic"} <= needed and not {"pytest", "ruff", "setuptools"} & needed


def test_the_version_stands_in_one_place() -> None:
    copies = [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("*.*"), *(p for name in SOURCES for p in (ROOT / name).rglob("*.py"))]
        if path.suffix in (".py", ".toml", ".md") and f'"{fewseg.__version__}"' in path.read_text("utf-8")
    ]
    assert copies == ["fewseg/__init__.py"]


def test_the_installed_package_works_elsewhere(installed: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(installed)!r})" + ELSEWHERE
    run([sys.executable, "-I", "-c", code], tmp_path)
