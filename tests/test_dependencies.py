"""Imports go one way: scripts and tools -> engine -> model, dataset, util."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
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


@cache
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


def imported_modules(source: str, modules: set[str]) -> set[str]:
    """Return those of ``modules`` that a file imports, at its head or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("fewseg.") for name in found} & modules


def circle(sources: dict[str, str]) -> list[str]:
    """Return the modules of a circular import; nothing where there is none."""
    graph = {name: imported_modules(source, set(sources)) - {name} for name, source in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_circular_imports() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    named = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files}
    sources = {name: file.read_text() for file, name in named.items() if file.name != "__init__.py"}
    assert len(sources) > 150
    assert not circle(sources)


def test_a_circular_import_is_found_inside_functions_too() -> None:
    sources = {
        "util.a": "from fewseg.util.b import B",
        "util.b": "from fewseg.util import c",
        "util.c": "def use():\n    import fewseg.util.a",
    }
    assert {*circle(sources)} == {"util.a", "util.b", "util.c"}


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
    """One file reads NumPy's frozen generator, from which recorded runs of published methods start."""
    users = set()
    for file in (ROOT / "model").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            packages = {name.split(".")[0] for name in named}
            assert not packages & {"cv2", "torchvision", "pydantic", "yaml", "scipy"}, file
            users |= {file.name} if "numpy" in packages else set()
    assert users == {"mixture.py"}


def test_engine_asks_a_network_instead_of_its_class() -> None:
    files = [*(ROOT / "engine").rglob("*.py"), *(ROOT / "tools").rglob("*.py"), *ROOT.glob("*.py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                classes = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                assert not classes & {"FewShotModel", "BaseLearner"}, f"{file}:{node.lineno}"


def test_contract_of_a_method_can_be_read_in_one_look() -> None:
    file = ast.parse((ROOT / "model" / "contract.py").read_text())
    contract = next(n for n in file.body if isinstance(n, ast.ClassDef) and n.name == "MetaLearner")
    names = [n.name for n in contract.body if isinstance(n, ast.FunctionDef)]
    names += [n.target.id for n in contract.body if isinstance(n, ast.AnnAssign)]
    assert len(names) <= 20, names


@cache
def users_of(module: str) -> set[str]:
    """Return what imports a module of ``model.layer``: methods by name, other networks by their module."""
    users = set()
    for file in (ROOT / "model").rglob("*.py"):
        if f"model.layer.{module}" in imports(file):
            parts = file.relative_to(ROOT / "model").with_suffix("").parts
            if parts[0] == "layer":
                users |= users_of(parts[1])
            else:
                users.add(parts[1] if parts[0] == "meta" else ".".join(parts))
    return users


@pytest.mark.parametrize("module", sorted(p.stem for p in (ROOT / "model" / "layer").glob("[!_]*.py")))
def test_a_layer_serves_two_methods_at_least(module: str) -> None:
    assert len(users_of(module)) >= 2, f"model/layer/{module}.py belongs beside {users_of(module)}"
