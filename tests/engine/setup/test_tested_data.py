"""The data of a test: classes, protocol, word vectors and keys, where they are not those of the training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.engine.evaluation.measure import build_tested
from fewseg.engine.evaluation.outcome import result_of
from fewseg.engine.setup.data import classes_of_training, test_episodes, test_fold_of, validation_episodes
from fewseg.engine.setup.protocols import test_protocol
from fewseg.engine.setup.run_path import result_key, run_key
from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Kind
from fewseg.engine.study.description.study_file import read_study
from fewseg.util.config import load_config
from fewseg.util.errors import UserError
from tests.engine.conftest import ROOT, Configure


class TestFold:
    def test_all_classes_with_names_that_the_training_has_not_seen(
        self, configure: Configure, other: Path
    ) -> None:
        fold = test_fold_of(configure("bam", **{"Test_Finetune.data": other}))
        assert (fold.data_set, fold.number) == ("folder", 0)
        assert fold.classes.novel == tuple(range(1, 19)) and fold.classes.base == ()

    def test_the_fold_of_the_training_decides_what_is_new(self, configure: Configure, other: Path) -> None:
        fold = test_fold_of(configure("bam", split=3, **{"Test_Finetune.data": other}))
        assert fold.number == 3 and fold.classes.novel == tuple(range(1, 21))

    def test_a_fold_that_is_named_is_tested_alone(self, configure: Configure, other: Path) -> None:
        changes = {"Test_Finetune.data": other, "Test_Finetune.data_opts": "{split: 1}"}
        fold = test_fold_of(configure("bam", **changes))
        assert fold.number == 1 and fold.classes.novel == (6, 7, 8, 9, 10)

    def test_the_classes_of_the_training_stay_those_of_its_fold(
        self, configure: Configure, other: Path
    ) -> None:
        config = configure("bam", split=1, **{"Test_Finetune.data": other})
        assert len(classes_of_training(config, test_fold_of(config)).base) == 15

    @pytest.mark.filterwarnings("ignore:coco")
    def test_the_fold_system_is_that_of_the_tested_data(self) -> None:
        given = ["Test_Finetune.data", str(ROOT / "config/_base_/dataset/coco.yaml")]
        config = load_config(ROOT / "config/pascal/panet_resnet50.yaml", [*given, "data_opts", "{split: 1}"])
        fold = test_fold_of(config)
        assert fold.classes.novel == tuple(range(2, 81, 4))
        assert fold.protocol.interleaved_folds is False  # recorded as a point of the training
        consecutive = "{split: 1, use_split_coco: False}"
        config = load_config(ROOT / "config/pascal/panet_resnet50.yaml", [*given, "data_opts", consecutive])
        assert test_fold_of(config).classes.novel == tuple(range(21, 41))

    def test_held_out_classes_of_the_training_are_no_rule_for_the_tested_data(
        self, configure: Configure, other: Path
    ) -> None:
        given = {"Data.protocol_options.selection": "held_out_base", "Test_Finetune.data": other}
        config = configure("bam", **given)
        fold = test_fold_of(config)
        assert fold.classes.held_out == () and fold.protocol.selection == "held_out_base"
        assert len(classes_of_training(config, fold).base) == 12

    def test_class_names_of_the_training_are_needed(
        self, configure: Configure, other: Path, tmp_path: Path
    ) -> None:
        config = configure("bam", data_set="folder", data_root=tmp_path, **{"Test_Finetune.data": other})
        message = (
            r"classes.txt: .* \(class names and lists of the training's data tell which classes are new\)$"
        )
        with pytest.raises(UserError, match=message):
            test_fold_of(config)


class TestProtocol:
    def test_points_of_the_data_come_from_their_file_and_sizes_from_the_training(self) -> None:
        config = load_config(
            ROOT / "config/shapes/bam_resnet18.yaml",
            ["Test_Finetune.data", str(ROOT / "config/_base_/dataset/pascal.yaml")],
        )
        protocol = test_protocol(config)
        assert (protocol.name, protocol.min_area, protocol.test_images) == ("bam", 2048, "val")
        assert protocol.input_size == config.Data.val_size != 473

    def test_a_file_may_name_its_protocol(self) -> None:
        given = ["Test_Finetune.data", str(ROOT / "config/_base_/dataset/fss1000.yaml")]
        protocol = test_protocol(load_config(ROOT / "config/pascal/bam_resnet50.yaml", given))
        assert (protocol.name, protocol.episodes, protocol.input_size) == ("hsnet", 2400, 400)
        assert protocol.novel_in_train == "remove"  # a point of the training
        given += ["test_protocol", "bam"]
        protocol = test_protocol(load_config(ROOT / "config/pascal/bam_resnet50.yaml", given))
        assert (protocol.name, protocol.episodes, protocol.input_size) == ("bam", 1000, 473)

    def test_the_number_of_episodes_of_the_training_s_data_does_not_follow(self) -> None:
        given = ["Test_Finetune.data", str(ROOT / "config/_base_/dataset/pascal.yaml")]
        protocol = test_protocol(load_config(ROOT / "config/fss1000/panet_resnet50.yaml", given))
        assert (protocol.name, protocol.episodes) == ("hsnet", 1000)

    def test_the_list_is_the_protocol_s_unless_one_is_named(self, tmp_path: Path) -> None:
        for name in ("trainaug.txt", "mine.txt"):
            (tmp_path / name).touch()
        path = tmp_path / "voc.yaml"
        path.write_text(f"Data: {{data_set: pascal, data_root: voc, val_list: {tmp_path}/val.txt}}\n")
        given = ["Test_Finetune.data", str(path)]
        config = load_config(ROOT / "config/coco/panet_resnet50.yaml", given)
        assert test_fold_of(config).val_list == tmp_path / "trainaug.txt"
        named = [*given, "data_opts", f"{{val_list: {tmp_path}/mine.txt}}"]
        config = load_config(ROOT / "config/coco/panet_resnet50.yaml", named)
        assert test_fold_of(config).val_list == tmp_path / "mine.txt"

    def test_what_a_method_s_schedule_sets_follows(self) -> None:
        given = ["Test_Finetune.data", str(ROOT / "config/_base_/dataset/coco.yaml")]
        protocol = test_protocol(load_config(ROOT / "config/pascal/canet_resnet50.yaml", given))
        assert (protocol.resize, protocol.label_size) == ("stretch", "original")

    @pytest.mark.parametrize(
        "given",
        [
            ["Data.protocol_options.min_area", "7"],
            ["Test_Finetune.data_opts", "{protocol_options.min_area: 7}"],
            ["Test_Finetune.data_opts", "{protocol_options: {min_area: 7}}"],
        ],
    )
    def test_the_command_line_changes_points(
        self, configure: Configure, other: Path, given: list[str]
    ) -> None:
        changes = dict(zip(given[::2], given[1::2], strict=True))
        protocol = test_protocol(configure("bam", **{"Test_Finetune.data": other, **changes}))
        assert (protocol.min_area, protocol.small_classes) == (7, "leave_out")


class TestWordVectors:
    def config(self, configure: Configure, other: Path, **changes: object):
        given = {"Method.options.embeddings": "shapes.npy", "Test_Finetune.data": other, **changes}
        return configure("mianet", base="none", ensemble="none", **given)

    def test_those_of_the_training_are_refused(self, configure: Configure, other: Path) -> None:
        config = self.config(configure, other)
        fold = test_fold_of(config)
        with pytest.raises(
            UserError, match=r"^Test_Finetune.embeddings: unset; shapes.npy has word vectors for"
        ):
            build_tested(config, classes_of_training(config, fold), fold)

    @pytest.mark.parametrize(
        "given", [{"Test_Finetune.embeddings": "hashed"}, {"Method.options.embeddings": "hashed"}]
    )
    def test_the_tested_classes_have_their_own(
        self, configure: Configure, other: Path, given: dict[str, object]
    ) -> None:
        config = self.config(configure, other, **given)
        fold = test_fold_of(config)
        model = build_tested(config, classes_of_training(config, fold), fold)
        expected = configure(
            "mianet", base="none", ensemble="none", **{"Method.options.embeddings": "hashed"}
        )
        shapes = test_fold_of(expected)
        others = build_tested(expected, shapes.classes, shapes)
        assert torch.equal(model.meta.embeddings[19:], others.meta.embeddings[19:])  # the same two names
        assert not torch.isclose(model.meta.embeddings[1:19], others.meta.embeddings[1:19]).all(dim=1).any()


class TestStudies:
    def test_tests_on_several_data_share_their_training(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(ROOT)
        path = tmp_path / "study.yaml"
        path.write_text(
            "config: config/shapes/bam_resnet18.yaml\n"
            "grid:\n"
            "  fold: [0]\n"
            "  tested:\n"
            "    shapes: {}\n"
            "    folder: {Test_Finetune.data: config/_base_/dataset/folder.yaml}\n"
            "    fold1: {data: config/_base_/dataset/folder.yaml, Test_Finetune.data_opts.split: 1}\n"
        )
        jobs = jobs_of(read_study(path)).jobs.values()
        tests = [job for job in jobs if job.kind is Kind.TEST]
        assert sum(job.kind is Kind.TRAIN for job in jobs) == 1 and len({job.results for job in tests}) == 3
        assert len({run_key(job.config) for job in tests}) == 1
        assert len({result_key(job.config) for job in tests}) == 3


def test_supports_may_be_annotated_otherwise_in_the_test_alone(configure: Configure) -> None:
    plain, boxed = configure("bam", episodes=2), configure("bam", episodes=2, test_ann_type="bbox")
    assert run_key(plain) == run_key(boxed) and result_key(plain) != result_key(boxed)
    fold = test_fold_of(boxed)
    masks, boxes = (first_support(test_episodes(config, fold)) for config in (plain, boxed))
    assert (masks <= boxes).all() and (masks < boxes).any()
    validation = validation_episodes(boxed, fold, 1), validation_episodes(plain, fold, 1)
    assert torch.equal(*map(first_support, validation))
    result = result_of(boxed, test_episodes(boxed, fold), method="bam", seconds=0.0)
    assert result.annotation == "bbox"


def first_support(episodes: EpisodeSet) -> torch.Tensor:
    """Return where the first support of the first episode shows its object."""
    episode, _ = episodes.load(next(iter(episodes)))
    return episode.support_mask[0, 0, 0] == 1
