"""Imports go one way: scripts and tools -> engine -> model, dataset, util."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"model", "dataset", "engine", "util"}
ALLOWED = {
    "util": {"util"},
    "model": {"model"},
    "dataset": {"dataset", "util", "model.contract"},
    "engine": {"engine", "dataset", "model", "util"},
}


def imports(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    assert not [name for name in names if name.split(".")[0] in PACKAGES], f"{file}: import from fewseg"
    own = [name.removeprefix("fewseg.") for name in names if name.startswith("fewseg.")]
    return [name for name in own if name != "alias"]


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_it_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for name in imports(file):
            allowed = name in ALLOWED[package] or name.split(".")[0] in ALLOWED[package]
            assert allowed, f"{file.relative_to(ROOT)} imports {name}"


def test_meta_learners_do_not_import_each_other() -> None:
    meta = ROOT / "model" / "meta"
    for file in meta.rglob("*.py"):
        method = file.relative_to(meta).with_suffix("").parts[0]
        others = [
            name for name in imports(file) if name.startswith("model.meta.") and name.split(".")[2] != method
        ]
        assert not others, f"{file.name} imports {others}"


def test_engine_names_no_method() -> None:
    methods = {path.stem for path in (ROOT / "model" / "meta").iterdir()} - {"__init__", "__pycache__"}
    files = sorted((ROOT / "engine").rglob("*.py"))
    assert len(files) > 10 and len(methods) > 10
    for file in files:
        constants = {n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)}
        assert not methods & {c for c in constants if isinstance(c, str)}, file.name


def test_networks_need_no_third_party_but_torch() -> None:
    for file in (ROOT / "model").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.split(".")[0] not in {"numpy", "cv2", "torchvision", "pydantic", "yaml"}, (
                    file
                )
