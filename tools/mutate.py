"""Put small faults into the code, one at a time, and report those that the tests do not notice.

    python tools/mutate.py util/metrics.py util/results/tables.py --count 50
    python tools/mutate.py util --seed 3

A fault is one operator, comparison or constant changed. The tests that run against it are those that bear the
module's name, tests/<package>/test_<module>.py and test_<module>_*.py, then others of the package that import
it. Nothing in the checkout is touched: all runs in a copy.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2  # noqa: F401 (loaded once, for all forks; likewise the others)
import numpy as np  # noqa: F401
import pydantic  # noqa: F401
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
ENDLESS = 10
"""A fault that makes the tests compute this many times as long has an endless loop, and counts as noticed."""

WAITING = 900
"""Seconds after which tests that compute nothing are stopped, and the fault counts as noticed, too."""

REACHES = ("name", "package", "all")

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq},
    **{ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd},
}


@dataclass(frozen=True)
class Fault:
    """One changed place of one file.

    Attributes:
        path: of the file, relative to the checkout.
        line: where the change is.
        source: the whole changed file.
        change: before and after, in words.
    """

    path: Path
    line: int
    source: str
    change: str


def faults(path: Path) -> Iterator[Fault]:
    """Yield every fault of a file; error messages, annotations, decorators and docstrings stay."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kept = {id(inner) for node in ast.walk(tree) for inner in _kept(node)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in kept or (changed := _changed(node)) is None:
            continue
        faulty = copy.deepcopy(tree)
        target = next(other for place, other in enumerate(ast.walk(faulty)) if place == number)
        for field, value in changed.items():
            setattr(target, field, value)
        before, after = ast.unparse(node), ast.unparse(target)
        yield Fault(path, getattr(node, "lineno", 0), ast.unparse(faulty), f"{before}  ->  {after}")


def _changed(node: ast.AST) -> dict[str, object] | None:
    """Return the fields of ``node`` that a fault changes, with their new values; None where it has none."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp | ast.AugAssign):
        swapped = _SWAPS.get(type(node.op))
        return None if swapped is None else {"op": swapped()}
    if isinstance(node, ast.Compare):
        return {"ops": [_SWAPS[type(node.ops[0])](), *node.ops[1:]]}
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            return {"value": not value}
        if isinstance(value, int | float):
            return {"value": value + 1}
        if isinstance(value, str) and value:
            return {"value": f"changed {value}"}
    return None


def _kept(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below ``node`` that no fault changes, because they have no effect on a figure."""
    parts: list[ast.AST | None] = [node] if isinstance(node, ast.Raise) else []
    parts += [getattr(node, "annotation", None), getattr(node, "returns", None)]
    parts += getattr(node, "decorator_list", [])
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        parts += [node.value]
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        parts += [node.value]
    if isinstance(node, ast.keyword) and node.arg == "strict":  # checks of our own reasoning, no behaviour
        parts += [node.value]
    for part in parts:
        yield from ast.walk(part) if part is not None else ()


def tests_of(path: Path, reach: str) -> list[str]:
    """Return the test files that run against the faults of the module at ``path``, those of its name first.

    Args:
        path: of the module, relative to the checkout.
        reach: one of REACHES.
    """
    package, module = ROOT / "tests" / path.parent, ".".join(path.with_suffix("").parts)
    own = [*package.glob(f"test_{path.stem}.py"), *sorted(package.glob(f"test_{path.stem}_*.py"))]
    importing = [
        file
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if f"{module} import" in file.read_text(encoding="utf-8") and file not in own
    ]
    near = [file for file in importing if file.parent == package]
    files = {"name": own, "package": own + near, "all": own + importing}[reach]
    return [str(file.relative_to(ROOT)) for file in files]


def passes(tests: list[str], checkout: Path, fault: Fault | None = None, seconds: float = 0) -> bool:
    """Return whether these test files pass in a checkout, into which ``fault`` is put for that time.

    The tests run in a fork of this process, which has loaded the heavy libraries already.

    Args:
        tests: the files, relative to the checkout.
        checkout: a copy that may be changed.
        fault: what is put in; nothing if None.
        seconds: processor time after which they fail, independent of the machine's load; 0 for no limit.
    """
    whole = ""
    if fault:
        file = checkout / fault.path
        whole = file.read_text(encoding="utf-8")
        file.write_text(fault.source, encoding="utf-8")
        os.utime(file, (1, 1))  # no cached bytecode is of that time
    child = os.fork()
    if child == 0:
        sys.dont_write_bytecode = fault is not None
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(WAITING if seconds else 0)
        os.chdir(checkout)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.path[0] = str(checkout)
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    _, status = os.waitpid(child, 0)
    if fault:
        (checkout / fault.path).write_text(whole, encoding="utf-8")
    return status == 0


def limit_of(tests: list[str], checkout: Path) -> float:
    """Return the seconds of computing that these test files may take, after a run without any fault."""
    before = os.times()
    if not passes(tests, checkout):
        sys.exit(f"error: the tests fail without any fault; run pytest {' '.join(tests)}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return ENDLESS * (1 + spent)


def main(argv: list[str] | None = None) -> int:
    """Report the share of noticed faults and the others one by one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, help="files or folders, relative to the checkout")
    parser.add_argument("--count", type=int, default=50, help="faults to draw from all possible ones")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    reach = "of the module's name alone (fast), also of its package, or all that import it"
    parser.add_argument("--tests", choices=REACHES, default="package", help=reach)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    files = [
        file.relative_to(ROOT)
        for path in args.paths
        for file in ([ROOT / path] if (ROOT / path).is_file() else sorted((ROOT / path).rglob("*.py")))
    ]
    tests = {file: tests_of(file, args.tests) for file in files}
    for file in (file for file in files if not tests[file]):
        print(f"{file}: no test imports it")
    possible = [fault for file in files if tests[file] for fault in faults(file)]
    drawn = random.Random(args.seed).sample(possible, min(args.count, len(possible)))
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        checkout = _copied(Path(folder))
        limits = {file: limit_of(tests[file], checkout) for file in {fault.path for fault in drawn}}
        for fault in drawn:
            own, others = tests[fault.path][:1], tests[fault.path][1:]  # apart: collecting others takes time
            if all(passes(part, checkout, fault, limits[fault.path]) for part in (own, others) if part):
                unnoticed += 1
                print(f"{fault.path}:{fault.line}: {fault.change[:200]}", flush=True)
    print(f"{len(drawn) - unnoticed} of {len(drawn)} faults noticed ({len(possible)} possible)")
    return 1 if unnoticed else 0


def _copied(folder: Path) -> Path:
    """Copy what git does not ignore of the checkout into ``folder``, with the recorded figures beside it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    checkout = folder / "checkout"
    for name in listed.stdout.splitlines():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name)
    if (shared := ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(shared)
    return checkout


if __name__ == "__main__":
    sys.exit(main())
