"""Tests of a checkpoint on other data than those of its training."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.measure import build_tested, open_run
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.setup.data import classes_of_training, fold_of, test_episodes, test_fold_of
from fewseg.engine.setup.weights import describe, load_trained
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.errors import UserError
from fewseg.util.results.result import Result, read_result
from fewseg.util.results.tables import build_table
from tests.engine.conftest import OTHER_NAMES as NAMES
from tests.engine.conftest import Configure

Command = Callable[..., list[str]]


@pytest.fixture
def same(shapes: Path, tmp_path: Path) -> Path:
    """A config file of the data of the training."""
    path = tmp_path / "same.yaml"
    lists = f"val_list: {shapes}/ImageSets/Segmentation/train.txt"
    path.write_text(f"Data: {{data_set: shapes, data_root: {shapes}, {lists}}}\n")
    return path


def results_in(folder: Path) -> dict[str, Result]:
    return {path.name: read_result(path) for path in sorted(folder.glob("*shot*.json"))}


def undecided(configure: Configure, **changes: object):
    """Return a network that is not sure of anything, and the episodes that a config tests."""
    config = configure("bam", **{"Test_Finetune.episodes": 4, **changes})
    fold = test_fold_of(config)
    torch.manual_seed(0)
    model = build_tested(config, classes_of_training(config, fold), fold).eval()
    episodes = test_episodes(config, fold)
    episode = episodes.load(next(iter(episodes)))[0]
    with torch.no_grad():
        for parameter in model.base_head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        logits = model(episode).parts["meta"].movedim(-3, 0)
        last = next(m for m in model.meta.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 2)
        last.bias[1] -= (logits[1] - logits[0]).median()
    return model, episodes


def counts(scores) -> list[dict[str, list]]:
    return [{part: own.tolist() for part, own in score.episodes.items()} for score in scores]


class TestScores:
    @pytest.mark.parametrize("changes", [{}, {"ways": 2}], ids=str)
    def test_encoding_once_equals_the_plain_loop(
        self, configure: Configure, other: Path, changes: dict[str, object]
    ) -> None:
        arguments = undecided(configure, **{"Test_Finetune.data": other, **changes})
        once, plain = counts(evaluate(*arguments)), counts(evaluate_one_by_one(*arguments))
        assert once == plain
        assert sum(hits for _, *classes in once[0]["final"] for hits, *_ in classes) > 0

    def test_the_base_learner_is_not_scored_on_classes_that_are_not_its_own(
        self, configure: Configure, other: Path
    ) -> None:
        (scores, _) = evaluate(*undecided(configure, **{"Test_Finetune.data": other}))
        assert "mIoU_base" not in scores.metrics() and "mIoU_meta" in scores.metrics()
        assert list(scores.class_iou()) == NAMES

    def test_the_base_learner_still_marks_known_objects(self, configure: Configure, other: Path) -> None:
        model, episodes = undecided(configure, **{"Test_Finetune.data": other})
        classifier = [module for module in model.base_head.modules() if isinstance(module, nn.Conv2d)][-1]
        with torch.no_grad():
            classifier.bias[3] += 100  # one of its own classes is everywhere
            model.ensemble.cls_merge.weight.copy_(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))
        scores, _ = evaluate(model, episodes)
        hits = {part: scores.episodes[part][:, 1, 0].sum().item() for part in ("final", "meta")}
        assert hits["final"] == 0 < hits["meta"]

    @pytest.mark.parametrize("left_out", [["ensemble"], ["ensemble", "base"]], ids=str)
    def test_without_the_ensemble_the_meta_learner_is_left(
        self, configure: Configure, other: Path, tmp_path: Path, caplog, left_out: list[str]
    ) -> None:
        model, episodes = undecided(configure, **{"Test_Finetune.data": other})
        path = tmp_path / "bam.safetensors"
        trained = fold_of(configure("bam")).classes
        save_checkpoint(path, model.state_dict(), describe(configure("bam"), trained))
        given = {"Test_Finetune.data": other, "Test_Finetune.weight": path, "Test_Finetune.episodes": 4}
        given |= dict.fromkeys(left_out, "none")
        with caplog.at_level("INFO"):
            run = open_run(configure("bam", **given))
        words = "base learner and ensemble" if "base" in left_out else "ensemble"
        assert f"bam.safetensors: used without its {words}, as the config says" in caplog.text
        whole, alone = counts(evaluate(model, episodes)), counts(evaluate(run.model.eval(), run.episodes))
        assert [one["final"] for one in alone] == [one["meta"] for one in whole]
        with pytest.raises(UserError, match="does not fit this network"):
            load_trained(run.model, path, describe(configure("bam"), trained), whole=True)

    def test_data_of_the_training_give_the_figures_of_the_plain_test(
        self, configure: Configure, same: Path
    ) -> None:
        plain, again = (undecided(configure, **changes) for changes in ({}, {"Test_Finetune.data": same}))
        assert [manifest.hash for manifest in again[1].manifests] == [one.hash for one in plain[1].manifests]
        first, second = (counts(evaluate(*arguments)) for arguments in (plain, again))
        for one, other in zip(first, second, strict=True):
            assert one["final"] == other["final"] and one["meta"] == other["meta"]


class TestScript:
    def test_results_say_both_data_sets(
        self, script: ModuleType, weights, command: Command, tmp_path: Path, other: Path, capsys
    ) -> None:
        weights()
        script.main(command("--data", other, "--seeds", 1))
        script.main(command("--data", other, "split", 1, "--seeds", 1))
        script.main(command("--seeds", 1))
        found = results_in(tmp_path / "out")
        by_training = {result.trained_on: (name, result) for name, result in found.items()}
        assert set(by_training) == {"shapes", "shapes fold 0", None}
        name, result = by_training["shapes"]
        assert "_folder_bam_trained-on-shapes_fold0_1shot_" in name and "on-mine" in name
        assert (result.data_set, result.fold, [*result.class_iou]) == ("folder", 0, NAMES)
        assert result.config["Data"]["data_set"] == "folder" and result.training_data["data_set"] == "shapes"
        assert result.protocol_difference["min_area"] == (2048, 256)
        assert by_training["shapes fold 0"][1].fold == 1
        said = capsys.readouterr().out
        assert f"folder: 18 classes are tested: {', '.join(NAMES)}" in said
        assert "trained on shapes, tested on folder: mIoU" in said
        assert "trained on shapes" in (tmp_path / "out/report.html").read_text()

    def test_the_same_test_is_read_and_not_measured_again(
        self, script: ModuleType, weights, command: Command, tmp_path: Path, other: Path
    ) -> None:
        weights()
        for _ in range(2):
            script.main(command("--data", other, "--seeds", 1))
        assert "tested before" in (tmp_path / "out/test.log").read_text()
        assert len(results_in(tmp_path / "out")) == 1

    def test_baselines_know_no_training(
        self, script: ModuleType, weights, command: Command, tmp_path: Path, other: Path
    ) -> None:
        weights()
        script.main([*command("--data", other, "--seeds", 1, "--untrained")])
        found = results_in(tmp_path / "out/baselines").values()
        assert {result.method: result.trained_on for result in found} == {
            "support mask copied": None,
            "every object": None,
            "untrained bam": "shapes",
        }
        (table,) = (tmp_path / "out/tables").glob("*/mIoU.csv")
        rows = list(csv.DictReader(table.read_text().splitlines()))
        assert len(rows) == 4

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["missing.yaml"], r"^--data: no such config file: missing.yaml; check the path$"),
            (["{other}", "split"], r"^--data: split has no value; give pairs behind the file"),
            (
                ["{other}", "shot", "5"],
                r"data_opts: shot is no key of the tested data, which are data_set, data_r",
            ),
            (["{other}", "split", "4"], r"^split 4: data set folder has the folds 0 to 3$"),
            (["{other}", "min_area", "4"], r"data_opts: min_area is no key of the tested data"),
            (["{other}", "val_list", "[1]"], r"^--data val_list: Data.val_list: must be text, got"),
            (["{other}", "data_root", "gone"], r"^gone/classes.txt: "),
        ],
    )
    def test_refusals_of_the_data(
        self, script: ModuleType, weights, command: Command, other: Path, words: list[str], message: str
    ) -> None:
        weights()
        with pytest.raises(UserError, match=message):
            script.main(command("--data", *(word.format(other=other) for word in words)))

    def test_generalised_tests_are_refused(
        self, script: ModuleType, weights, command: Command, other: Path
    ) -> None:
        weights()
        with pytest.raises(
            UserError, match=r"^generalized: the base classes of the training on shapes are no cl"
        ):
            script.main(command("--data", other, "--generalized"))

    def test_changes_without_a_file_are_refused(self, script: ModuleType, weights, command: Command) -> None:
        weights()
        with pytest.raises(
            UserError, match=r"split would change the file of Test_Finetune.data, which is unset"
        ):
            script.main([*command(), "Test_Finetune.data_opts.split", "1"])

    def test_a_checkpoint_of_other_data_is_refused_with_the_remedy(
        self, script: ModuleType, weights, command: Command, other_root: Path
    ) -> None:
        weights()
        with pytest.raises(
            UserError, match=r"is of data_set shapes, but data_set folder is wanted; .* --data"
        ):
            script.main([*command(), "data_set", "folder", "data_root", str(other_root)])


def test_rows_of_other_trainings_are_never_one(tmp_path: Path) -> None:
    seed = {"seed": 1, "episode_hash": "a", "metrics": {"mIoU": 0.5}}
    common = {"method": "bam", "backbone": "resnet50", "data_set": "pascal", "shot": 1, "protocol": "bam"}
    common |= {"episodes": 9, "seeds": (seed,), "seconds": 1.0}
    own, first, second = (
        Result(**common, fold=0),
        Result(**common, fold=0, trained_on="coco"),
        Result(**common, fold=1, trained_on="coco"),
    )
    table = build_table([own, first, second])
    assert table.label_columns == ("method", "trained on")
    assert [row.labels for row in table.rows] == [("bam", "-"), ("bam", "coco")]
    assert "trained on" not in build_table([own]).label_columns
    old = {
        key: value for key, value in json.loads(own.model_dump_json()).items() if not key.startswith("train")
    }
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    assert read_result(path).trained_on is None


def test_a_run_keeps_the_classes_of_its_training(configure: Configure, weights, other: Path) -> None:
    config = configure("bam", **{"Test_Finetune.data": other, "Test_Finetune.weight": weights()})
    run = open_run(config)
    assert len(run.trained.base) == 15 and run.episodes.fold.data_set == "folder"
