"""Fixtures that the tests of several packages share."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, and the scripts that they start
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

pytest_plugins = ["tests.parity.summary"]

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the full-size cases, which take minutes")
    parser.addoption(
        "--kills",
        type=int,
        default=1,
        help="killed runs of every kind in test_kills.py and test_unfinished.py",
    )


def pytest_pycollect_makeitem(
    collector: pytest.Collector, name: str, obj: object
) -> list[pytest.Item] | None:
    """Collect no function of the project that a test imports, such as ``test_fold_of``."""
    return [] if str(getattr(obj, "__module__", "")).startswith("fewseg.") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="full size; run with --slow"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded figures and real data beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the recorded figures (../shared) are not beside this checkout")
    return folder


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _closed_log() -> Iterator[None]:
    """Close the log of a script that a test called as a function."""
    yield
    from fewseg.util.log import stop_log

    stop_log()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Shapes data set in VOC layout."""
    from fewseg.dataset.shapes.files import draw_shapes

    root = tmp_path_factory.mktemp("shapes")
    draw_shapes(root, images=160, seed=1)
    return root


@pytest.fixture
def small_files() -> Callable[[int], AbstractContextManager[None]]:
    """Return what limits every file to some bytes, as a full disk does: ``with small_files(100): ...``."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
