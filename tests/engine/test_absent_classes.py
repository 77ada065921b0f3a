"""Own data with rare classes: what cannot be tested is left out of the mean, and that is said."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run_folder import prepare_folder
from fewseg.dataset.reading.transform import class_table, relabel
from fewseg.engine.evaluation.generalized import GeneralizedScores
from fewseg.engine.evaluation.outcome import result_of
from fewseg.engine.evaluation.scores import Scores
from fewseg.engine.setup.data import fold_of, test_episodes, test_fold_of
from fewseg.engine.setup.interrupt import nothing
from fewseg.engine.setup.protocols import test_protocol, training_protocol
from fewseg.engine.training.validate import base_validation
from fewseg.model.contract import Prediction
from fewseg.util.config import Config, load_config
from fewseg.util.errors import ConfigError
from fewseg.util.metrics import IoUMeter, intersection_union_target
from fewseg.util.results.formats import to_terminal
from fewseg.util.results.result import Result
from fewseg.util.results.tables import build_table

CONFIG = "config/folder/bam_resnet50.yaml"
CLASSES = ("skin", "hair", "shoes", "bag", "hat", "scarf", "tie", "cape")
"""The first four are in every picture, the others in one or two."""

FEW = ("Test_Finetune.episodes", "12", "Test_Finetune.seeds", "[1, 2]")


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare pictures that all show four classes; the other four are in one or two each."""
    source = tmp_path_factory.mktemp("wardrobe") / "own"
    (source / "images").mkdir(parents=True)
    (source / "masks").mkdir()
    rare = {0: 5, 1: 5, 2: 6, 3: 7, 4: 7, 5: 8}
    for number in range(12):
        mask = np.zeros((48, 80), np.uint8)
        for class_id in (1, 2, 3, 4, *([rare[number]] if number in rare else [])):
            mask[:, 16 * ((class_id - 1) % 5) :][:, :16] = class_id
        Image.fromarray(mask).save(source / f"masks/{number}.png")
        photograph = np.random.default_rng(number).integers(0, 255, (48, 80, 3), np.uint8)
        Image.fromarray(photograph).save(source / f"images/{number}.png")
    (source / "classes.txt").write_text("\n".join(CLASSES))
    root = source.parent / "data"
    prepare_folder(Options(root, workers=1), source)
    return root


def opened(root: Path, *opts: str) -> Config:
    return load_config(CONFIG, ["data_root", str(root), *FEW, *opts])


def certain(target: Tensor, classes: int) -> Tensor:
    """Logits [1,classes,H,W] that are right everywhere; void is taken for the background."""
    known = torch.where(target == 255, 0, target).long()
    return torch.nn.functional.one_hot(known, classes).permute(2, 0, 1)[None].float()


def perfect(config: Config) -> list[Scores]:
    """The scores of a predictor that knows the labels."""
    fold = test_fold_of(config)
    images, found = fold.val_images, []
    for manifest in test_episodes(config, fold).manifests:
        scores = Scores(fold, manifest)
        for number, spec in enumerate(manifest):
            mask = np.asarray(Image.open(images.root / images.masks[images.position[spec.query]]))
            label = fold.scored_label(mask)
            target = torch.from_numpy(relabel(label, class_table(spec.class_ids)))
            scores.add(number, Prediction(certain(target, 2), {}), label)
        found.append(scores)
    return found


def result_with(config: Config, scores: list[Scores]) -> Result:
    episodes = EpisodeSet(scores[0].fold, [score.manifest for score in scores])
    return result_of(config, episodes, scores, method="perfect", seconds=0.0)


def require_all_right(root: Path, *opts: str) -> list[tuple[int, int]]:
    """Check that the perfect predictor gets 1 on every fold; return how many classes were tested and are."""
    tested = []
    for split in range(4):
        config = opened(root, "split", str(split), *opts)
        scores = perfect(config)
        for score in scores:
            assert score.metrics()["mIoU"] == pytest.approx(1.0)
            assert {value and round(value, 6) for value in score.class_iou().values()} <= {None, 1.0}
        tested.append(result_with(config, scores).tested)
    return tested


@pytest.mark.filterwarnings("ignore:.*left out of this fold's episodes")
class TestPerfectPredictor:
    def test_it_gets_everything_on_every_fold(self, wardrobe: Path) -> None:
        assert require_all_right(wardrobe) == [(1, 2)] * 4

    def test_it_does_under_another_protocol_too(self, wardrobe: Path) -> None:
        require_all_right(wardrobe, "test_protocol", "pfenet")

    def test_it_does_on_photographs_of_clothing(self, shared: Path, tmp_path: Path) -> None:
        options = Options(tmp_path, workers=1)
        prepare_folder(options, shared / "data/clothing_mini")
        tested = require_all_right(tmp_path)
        assert all(some < every for some, every in tested)


@pytest.mark.filterwarnings("ignore:.*left out of this fold's episodes")
def test_log_result_and_tables_say_which_classes_were_tested(wardrobe: Path) -> None:
    config = opened(wardrobe)
    scores = perfect(config)
    result = result_with(config, scores)
    assert sorted(result.class_iou.values(), key=str) == [pytest.approx(1.0), None]
    assert result.model_dump()["classes_tested"] == "1 of 2"
    words = "1 of 2 classes tested; the rest is left out of the mean"
    assert result.tested_in_words == words
    assert f"fold 0, 1-shot: {words}" in to_terminal(build_table([result]))


class TestSettings:
    def test_small_classes_that_are_left_out_are_left_out_of_the_mean(self, wardrobe: Path) -> None:
        for config in (opened(wardrobe), opened(wardrobe, "test_protocol", "hsnet")):
            assert test_protocol(config).absent_classes == "left_out"

    def test_without_the_rule_absent_classes_count_as_published(self, tmp_path: Path) -> None:
        path = tmp_path / "pascal.yaml"
        path.write_text("Data: {data_set: pascal}\nMethod: {arch: bam}\n")
        assert training_protocol(load_config(path)).absent_classes == "zero"
        leave_out = ["Data.protocol_options.small_classes", "leave_out"]
        assert training_protocol(load_config(path, leave_out)).absent_classes == "left_out"

    def test_contradictions_are_refused(self, wardrobe: Path) -> None:
        config = opened(wardrobe, "Data.protocol_options.absent_classes", "zero")
        with pytest.raises(
            ConfigError, match=r"small_classes leave_out.*absent_classes zero.*left_out"
        ) as one:
            training_protocol(config)
        assert "\n" not in str(one.value)
        published = ["Data.protocol_options", "{absent_classes: zero, small_classes: error}"]
        assert training_protocol(opened(wardrobe, *published)).absent_classes == "zero"


@pytest.mark.parametrize(("small_classes", "score"), [("leave_out", 1.0), ("error", 2 / 3)])
def test_a_base_learner_is_not_judged_by_classes_that_no_test_image_shows(
    wardrobe: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    small_classes: str,
    score: float,
) -> None:
    right = IoUMeter(4)  # of background and three classes, of which the last one never occurs
    label = torch.tensor([[0, 1], [2, 2]])
    right.add(intersection_union_target(label, label, 4))
    monkeypatch.setattr("fewseg.engine.training.validate.base_evaluation_loader", lambda *_: None)
    monkeypatch.setattr("fewseg.engine.training.validate.score_base_learner", lambda *_: right)
    config = opened(wardrobe, "Data.protocol_options.small_classes", small_classes)
    validate = base_validation(config, fold_of(config), torch.nn.Identity())
    with caplog.at_level(logging.INFO, logger="fewseg"):
        assert validate(1, nothing)[0] == pytest.approx(score)
    assert ("mIoU_base: 2 of 3 classes tested" in caplog.text) == (small_classes == "leave_out")


@pytest.mark.filterwarnings("ignore:.*left out of this fold's episodes")
def test_generalised_means_leave_out_the_same_classes(wardrobe: Path) -> None:
    fold = test_fold_of(opened(wardrobe))
    images, manifest = fold.val_images, fold.manifest(1, 1, generalized=True, episodes=8)
    scores = GeneralizedScores(fold, manifest, 0.5)
    for number, spec in enumerate(manifest):
        mask = np.asarray(Image.open(wardrobe / images.masks[images.position[spec.query]]))
        label = fold.scored_label(mask)
        base = certain(torch.from_numpy(relabel(label, fold.classes.base_table)), 1 + len(fold.classes.base))
        novel = certain(torch.from_numpy(relabel(label, class_table(spec.class_ids))), 2)
        scores.add(number, Prediction(10 * novel, {"base": base}), label)
    assert scores.metrics()["mIoU_n"] == pytest.approx(1.0)
    assert scores.metrics()["mIoU_b"] == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:.*left out of this fold's episodes")
def test_classes_of_one_name_are_counted_each(wardrobe: Path) -> None:
    fold = test_fold_of(opened(wardrobe))
    split = replace(fold.classes, names=("background", *["thing"] * len(CLASSES)))
    scores = Scores(replace(fold, classes=split), fold.manifest(1, 1, episodes=2))
    assert list(scores.class_iou()) == [f"thing ({class_id})" for class_id in split.novel]
