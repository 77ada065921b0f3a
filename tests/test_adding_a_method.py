"""docs/adding_a_method.md, carried out as it stands in a copy of the repository."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "adding_a_method.md"
STEP = re.compile(r"^### `([\w./]+)`\n(?:(?!#|```).*\n)*```\w+\n((?:(?!```).*\n)*)```$", re.MULTILINE)
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "data", "exp", "results", "recorded", "pictures")
METHODS = ("prototype", "guided")
USE = """
from fewseg.model import create_model
from fewseg.util.config import load_config

for name in ("prototype", "guided"):
    assert load_config(f"config/shapes/{name}_resnet18.yaml").Method.arch == name
try:
    create_model("prototype", backbone="resnet18", base="pspnet")
except ValueError as failure:
    assert "trains only its backbone" in str(failure), failure
"""


def carry_out(name: str, text: str, copy: Path) -> None:
    """Do one step: make a file, append to the page of methods, or add to the registry."""
    file = copy / name
    if not file.exists():
        file.write_text(text)
    elif file.suffix == ".md":
        file.write_text(file.read_text() + text)
    else:
        imported, (opening, *entries, _) = text.split("\n\n")[0], text.split("\n\n")[1].splitlines()
        code = file.read_text()
        assert opening in code
        code = code.replace(opening, "\n".join([opening, *entries]))
        file.write_text(code.replace("from fewseg.model.meta.bam", f"{imported}\nfrom fewseg.model.meta.bam"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("repository") / "fewseg"
    shutil.copytree(ROOT, target, ignore=LEFT_OUT)
    steps = STEP.findall(PAGE.read_text())
    assert len(steps) == 5 * len(METHODS)
    for name, text in steps:
        carry_out(name, text, target)
    return target


def run(copy: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_methods_pass_the_tests_of_the_page_and_of_the_repository(copy: Path) -> None:
    own = [f"tests/model/test_{name}.py" for name in METHODS]
    others = ["tests/test_dependencies.py", "tests/test_docs.py", "tests/util/test_shipped_configs.py"]
    chosen = ["-k", "prototype or guided or page or depend or engine or circle"]
    run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *own, *others, *chosen)


def test_the_methods_are_created_and_configured_as_the_page_says(copy: Path) -> None:
    run(copy, "-c", USE)


def test_the_page_is_formatted_as_the_repository_is(copy: Path) -> None:
    files = [f"{folder}{name}.py" for folder in ("model/meta/", "tests/model/test_") for name in METHODS]
    run(copy, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), *files)


def test_the_prototype_method_stays_short() -> None:
    file = dict(STEP.findall(PAGE.read_text()))["model/meta/prototype.py"]
    assert len(file.splitlines()) < 60
