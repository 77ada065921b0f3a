"""Small runs on the Shapes data set."""

from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fewseg.dataset.classes.own_names import read_class_names, to_lines
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.weights import describe
from fewseg.model.contract import BaseLearner
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.config import Config, load_config
from tests.engine.killed_runs import KILLS

COMMON = """
Data: {{data_set: shapes, data_root: {root}, val_list: {root}/ImageSets/Segmentation/train.txt,
       train_h: 65, train_w: 65, val_size: 65}}
Train: {{batch_size: 4, batch_size_val: 4, epochs: 2, workers: 0, optimizer: adamw, base_lr: 1e-3,
         index_split: 99, val_episodes: 6, save_path: {folder}}}
Method: {{backbone: resnet18, backbone_options: {{width: 8, stem: deep}}, pretrained: none,
         base_weight: {base}}}
Test_Finetune: {{episodes: 10, seeds: [1, 2], panels: 2}}
"""

Configure = Callable[..., Config]

OTHER_NAMES = [f"form {number}" for number in range(1, 19)]
"""Names of the first classes of the folder; the last two are called as in Shapes."""

ROOT = Path(__file__).resolve().parents[2]
ARCHS = {"bam": ["arch", "bam"], "pfenet": ["arch", "pfenet", "base", "none", "ensemble", "none"]}
"""Methods whose tests are tried out, with what their configs add."""


@pytest.fixture
def config_file(shapes: Path, tmp_path: Path) -> Path:
    """A config of small runs; ``arch`` is left to the overrides."""
    path = tmp_path / "tiny.yaml"
    path.write_text(COMMON.format(root=shapes, folder=tmp_path / "run", base=tmp_path / "base.safetensors"))
    return path


@pytest.fixture
def configure(config_file: Path) -> Configure:
    """Return the config of a small run: ``configure("bam", shot=5)``."""

    def build(arch: str, **changes: object) -> Config:
        narrow = {} if arch in ("pspnet", "panet") else {"Method.options.channels": 16}
        given = {"arch": arch, **narrow, **changes}
        return load_config(config_file, [str(part) for pair in given.items() for part in pair])

    return build


@pytest.fixture
def base_weight(configure: Configure, tmp_path: Path) -> BaseLearner:
    """Write a base learner's checkpoint, as if stage 1 had run."""
    config = configure("pspnet")
    split = fold_of(config).classes
    learner = build_network(config, split)
    save_checkpoint(tmp_path / "base.safetensors", learner.state_dict(), describe(config, split))
    return learner


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script test.py; a plain import would find Python's own package of that name."""
    spec = importlib.util.spec_from_file_location("test_script", ROOT / "test.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def weights(configure, tmp_path):
    """Write the checkpoint of a few-shot model of a number of shots, as if it had been trained."""

    def write(shot: int = 1, arch: str = "bam", seed: int = 0) -> Path:
        torch.manual_seed(seed)
        keys = dict(zip(ARCHS[arch][2::2], ARCHS[arch][3::2], strict=True))
        config = configure(arch, shot=shot, **keys)
        split = fold_of(config).classes
        path = tmp_path / f"{arch}{shot}.safetensors"
        save_checkpoint(path, build_network(config, split).state_dict(), describe(config, split))
        return path

    return write


@pytest.fixture
def command(config_file, tmp_path):
    """Return the arguments of a test that writes to ``out``."""

    def arguments(*more: object, arch: str = "bam", episodes: int = 3) -> list[str]:
        given = ("--config", config_file, "--out", tmp_path / "out", "--episodes", episodes)
        weight = ("--weight", tmp_path / f"{arch}{{shot}}.safetensors")
        opts = ("--opts", *ARCHS[arch], "Method.options.channels", 16, "panels", 1)
        return [str(part) for part in (*given, *weight, *more, *opts)]

    return arguments


@pytest.fixture(scope="module")
def other_root(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawings as a folder whose classes have names of their own, except for the last two."""
    root = shutil.copytree(shapes, tmp_path_factory.mktemp("other") / "mine")
    path = root / "classes.txt"
    _, *drawn = read_class_names(path)
    path.write_text("\n".join(to_lines(["background", *OTHER_NAMES, *drawn[len(OTHER_NAMES) :]])) + "\n")
    return root


@pytest.fixture
def other(other_root: Path, tmp_path: Path) -> Path:
    """A config file of these data."""
    path = tmp_path / "mine.yaml"
    lists = f"val_list: {other_root}/ImageSets/Segmentation/train.txt"
    points = "protocol_options: {min_area: 256, small_classes: leave_out}"
    path.write_text(f"Data: {{data_set: folder, data_root: {other_root}, {lists}, {points}}}\n")
    return path


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many runs were killed, and what they were doing then."""
    counts = Counter[str]()
    for report in terminalreporter.stats.get("passed", ()):
        counts.update(dict(report.user_properties).get(KILLS, {}))
    if ends := counts.pop("ends", 0):
        fell = ", ".join(f"{phase} {count}" for phase, count in counts.most_common())
        terminalreporter.write_line(f"{ends} killed runs ended the same; {counts.total()} kills: {fell}")
