"""The config files of this repository load and hold the published recipes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fewseg.util.config import load_config

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path for path in (ROOT / "config").rglob("*.yaml") if not {"_base_", "studies"} & {*path.parts}
)

RECIPES = {
    "pascal/pspnet_resnet50": ("background", 417, 417, 0.5, 2.0, 12, 6, 2.5e-4, 100, 0, False),
    "pascal/pspnet_vgg16": ("background", 417, 417, 0.5, 2.0, 12, 10, 2.5e-4, 100, 0, False),
    "coco/pspnet_resnet50": ("background", 417, 417, 0.5, 2.0, 12, 4, 2.5e-4, 20, -1, False),
    "coco/pspnet_vgg16": ("background", 417, 417, 0.5, 2.0, 12, 8, 2.5e-4, 20, -1, False),
    "pascal/bam_resnet50": (None, 473, 473, 0.9, 1.1, 8, 1, 0.005, 200, -1, True),
    "coco/bam_vgg16": (None, 641, 641, 0.8, 1.25, 8, 1, 0.005, 50, -1, True),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_loads_and_is_what_its_name_says(path: Path) -> None:
    config = load_config(path)
    name = config.Test_Finetune.adapt or config.Method.arch  # an adaptation needs no training of its own
    assert (name, config.Method.backbone) == tuple(path.stem.split("_"))
    assert config.Data.data_set == path.parent.name
    assert len(path.read_text().splitlines()) <= 4


@pytest.mark.parametrize("name", RECIPES)
def test_published_recipe(name: str) -> None:
    config = load_config(ROOT / f"config/{name}.yaml")
    data, train = config.Data, config.Train
    assert RECIPES[name] == (
        data.novel_in_train,
        data.train_h,
        data.val_size,
        data.scale_min,
        data.scale_max,
        train.batch_size,
        train.batch_size_val,
        train.base_lr,
        train.epochs,
        train.index_split,
        data.ori_resize,
    )
    assert (train.optimizer, train.momentum, train.weight_decay, train.power) == ("sgd", 0.9, 1e-4, 0.9)
    assert (train.stop_interval, train.manual_seed, data.rotate_max) == (75, 321, 10)


@pytest.mark.parametrize("arch", ["pspnet", "bam", "panet"])
def test_own_images_have_a_small_recipe_beside_the_published_one(arch: str) -> None:
    small, large = (load_config(ROOT / f"config/folder/{arch}_resnet{depth}.yaml") for depth in (18, 50))
    assert (small.Data.train_h, small.Data.train_w, small.Data.val_size) == (193, 193, 193)
    assert small.Method.backbone_options == {"stem": "standard"}  # of which torchvision has weights
    assert small.Method.pretrained in (None, "imagenet")
    assert small.Train.epochs <= 24 < 100 <= large.Train.epochs or arch == "panet"
    kept = ("data_set", "novel_in_train", "protocol", "protocol_options", "scale_min", "scale_max")
    assert all(getattr(small.Data, key) == getattr(large.Data, key) for key in kept)


class TestLoops:
    """``train.sh`` and ``meta_test.sh`` with a Python that only says what it was asked."""

    def run(self, script: str, tmp_path: Path, *arguments: str, **variables: str) -> list[str]:
        python = tmp_path / "python"
        python.write_text('#!/bin/sh\necho "called: $*"\n')
        python.chmod(0o755)
        done = subprocess.run(
            [ROOT / script, *arguments],
            env={**os.environ, "PYTHON": str(python), **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [
            line.removeprefix("called: ") for line in done.stdout.splitlines() if line.startswith("called")
        ]

    @pytest.mark.parametrize("script", ["train.sh", "meta_test.sh"])
    def test_the_environment_beside_the_project_is_used(self, tmp_path: Path, script: str) -> None:
        for name in (script, "tools/environment.sh", "requirements.txt", "requirements-dev.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
        python = tmp_path / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\necho "called: $*"\n')
        python.chmod(0o755)
        requirements = [(ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt")]
        (tmp_path / ".venv/.fewseg-requirements").write_text("".join(requirements))
        active = ("PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX")
        plain = {key: value for key, value in os.environ.items() if key not in active}
        done = subprocess.run([tmp_path / script], env=plain, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0 and "called: t" in done.stdout, done.stderr

    def test_train_goes_over_folds_and_shots(self, tmp_path: Path) -> None:
        calls = self.run("train.sh", tmp_path, "epochs", "1", FOLDS="0 2", SHOTS="1 5")
        assert len(calls) == 4
        network = "train.py --config config/pascal/bam_resnet50.yaml"
        assert calls[1] == f"{network} --opts resume auto split 0 shot 5 epochs 1"
        calls = self.run("train.sh", tmp_path, "epochs", "1", FOLDS="0 2", SHOTS="1 5", OVERWRITE="1")
        assert calls[1] == f"{network} --overwrite --opts split 0 shot 5 epochs 1"

    def test_base_learner_is_trained_once_per_fold(self, tmp_path: Path) -> None:
        assert len(self.run("train.sh", tmp_path, METHOD="pspnet")) == 4

    def test_several_processes(self, tmp_path: Path) -> None:
        calls = self.run("train.sh", tmp_path, FOLDS="0", SHOTS="1", PROCESSES="4")
        assert calls[0].startswith("tools/launch.py --standalone --nproc-per-node 4 train.py")

    def test_meta_test(self, tmp_path: Path) -> None:
        plain = "test.py --config config/shapes/bam_resnet18.yaml --folds 0 1 2 3 --shots 1 5"
        variables = {"DATA": "shapes", "BACKBONE": "resnet18"}
        assert self.run("meta_test.sh", tmp_path, **variables) == [plain]
        assert self.run("meta_test.sh", tmp_path, "cache_gib", "1", **variables) == [
            f"{plain} --opts cache_gib 1"
        ]
