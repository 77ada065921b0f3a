"""Small runs on the Shapes data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.weights import describe
from fewseg.model.contract import BaseLearner
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.config import Config, load_config

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
        narrow = [] if arch in ("pspnet", "panet") else [("Method.options.channels", 16)]
        pairs = [("arch", arch), *narrow, *changes.items()]
        return load_config(config_file, [str(part) for pair in pairs for part in pair])

    return build


@pytest.fixture
def base_weight(configure: Configure, tmp_path: Path) -> BaseLearner:
    """Write a base learner's checkpoint, as if stage 1 had run."""
    config = configure("pspnet")
    split = fold_of(config).classes
    learner = build_network(config, split)
    save_checkpoint(tmp_path / "base.safetensors", learner.state_dict(), describe(config, split))
    return learner


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
