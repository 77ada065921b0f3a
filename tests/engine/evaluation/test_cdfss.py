"""A model that was trained on all classes of one data set, tested on the data sets of CD-FSS."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run_cdfss import prepare_chest_xray, prepare_deepglobe, prepare_isic
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.weights import describe
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.results.result import read_result
from tests.dataset.prepare.cdfss_sources import lesions, lungs, tiles
from tests.engine.conftest import ROOT

KINDS = {"1": ["a1", "a2", "a3"], "2": ["b1", "b2", "b3"], "3": ["c1", "c2", "c3"]}
TARGETS = {
    "deepglobe": (tiles, prepare_deepglobe, 6),
    "isic": (partial(lesions, classes=KINDS, nested=True), prepare_isic, 3),
    "chest_xray": (lungs, prepare_chest_xray, 1),
}
METHOD = {"split": 4, "Method.base": "none", "Method.ensemble": "none"}


@pytest.mark.parametrize("data_set", TARGETS)
def test_a_model_of_all_classes_is_tested_on_another_domain(
    data_set, script, configure, config_file, tmp_path
) -> None:
    draw, prepare, classes = TARGETS[data_set]
    shots = [1, 2] if data_set == "deepglobe" else [1]
    root = tmp_path / "root"
    prepare(Options(root, tmp_path / "downloads", workers=0), draw(tmp_path / "source"))
    config = configure("panet", **METHOD)
    trained, path = fold_of(config).classes, tmp_path / "panet.safetensors"
    torch.manual_seed(0)
    save_checkpoint(path, build_network(config, trained).state_dict(), describe(config, trained))
    data = ROOT / f"config/_base_/dataset/{data_set}.yaml"
    given = ("--config", config_file, "--weight", path, "--out", tmp_path / "out", "--shots", *shots)
    given += ("--episodes", 6, "--seeds", 0, 1, "--data", data, "data_root", root)
    opts = ("arch", "panet", "panels", 0, "val_size", 33, *(part for pair in METHOD.items() for part in pair))
    script.main([str(part) for part in (*given, "--opts", *opts)])
    results = [read_result(file) for file in sorted((tmp_path / "out").glob("panet*shot*.json"))]
    assert [result.shot for result in results] == shots
    for result in results:
        assert (result.data_set, result.protocol, result.fold) == (data_set, "cdfss", 4)
        assert "shapes" in str(result.trained_on)
        assert result.episodes == 6 and [seed.seed for seed in result.seeds] == [0, 1]
        assert {"mIoU", "FB-IoU"} <= result.mean.keys() == result.std.keys()
        tested = [name for name, iou in result.seeds[0].class_iou.items() if iou is not None]
        assert len(tested) == classes
