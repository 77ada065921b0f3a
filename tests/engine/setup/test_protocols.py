"""Testing a model under its own and other protocols."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewseg.dataset.episodes.manifest import read_manifest
from fewseg.dataset.reading.transform import PlainTransform, TrainTransform
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.evaluation.outcome import counts_of, result_of
from fewseg.engine.evaluation.scores import Scores
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import (
    fold_of,
    test_episodes,
    test_fold_of,
    training_data,
    validation_episodes,
)
from fewseg.engine.setup.protocols import (
    test_difference,
    test_protocol,
    training_difference,
    training_protocol,
)
from fewseg.model.contract import Prediction
from fewseg.util.config import load_config
from fewseg.util.errors import ConfigError, DataError


@pytest.fixture
def plain(tmp_path):
    """A config that says nothing about sizes."""
    path = tmp_path / "plain.yaml"
    path.write_text("Data: {data_set: pascal}\nMethod: {arch: bam}\n")
    return path


def test_a_protocol_keeps_its_own_size_unless_the_config_gives_one(plain):
    assert training_protocol(load_config(plain, ["Data.protocol", "hsnet"])).input_size == 400
    changed = load_config(plain, ["Data.protocol", "hsnet", "val_size", "201"])
    assert training_protocol(changed).input_size == 201
    assert test_difference(changed, test_protocol(changed)) == {"input_size": (400, 201)}
    elsewhere = load_config(plain, ["Data.protocol_options.input_size", "201", "Data.protocol", "bam"])
    assert training_protocol(elsewhere).input_size == 201


def test_points_of_the_config_arrive(plain):
    config = load_config(
        plain, ["Data.protocol_options.min_area", "512", "ori_resize", "False", "resized_val", "False"]
    )
    protocol = training_protocol(config)
    assert (protocol.min_area, protocol.label_size, protocol.resize) == (512, "input", "shrink")
    with pytest.raises(ConfigError, match="no point min_are; did you mean min_area"):
        training_protocol(load_config(plain, ["Data.protocol_options.min_are", "512"]))


def test_another_protocol_tests_what_this_one_trained(configure):
    config = configure("bam", test_protocol="hsnet")
    protocol = test_protocol(config)
    assert (protocol.input_size, protocol.resize, protocol.label_size) == (400, "stretch", "input")
    assert (protocol.query_order, protocol.support_void) == ("pairs", "background")
    assert (protocol.novel_in_train, protocol.train_chain) == ("remove", "augment")
    assert test_difference(config, protocol) == {"episodes": (1000, 10), "seeds": ((0,), (1, 2))}
    assert training_difference(config, protocol) == {}
    assert test_protocol(configure("bam", test_protocol="hsnet", val_size=65)).input_size == 65


def test_coco_folds_stay_those_of_the_training(plain):
    coco = ["data_set", "coco", "use_split_coco", "True", "test_protocol", "panet"]
    config = load_config(plain, coco)
    assert test_protocol(config).interleaved_folds
    assert "interleaved_folds" not in training_difference(config, test_protocol(config))
    mlc = load_config(plain, ["data_set", "coco", "Data.protocol", "mlc", "use_split_coco", "True"])
    assert training_difference(mlc, test_protocol(mlc)) == {"interleaved_folds": (False, True)}


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("bam", TrainTransform(65, (0.9, 1.1), (-10, 10))),
        ("hsnet", PlainTransform(65)),
        ("panet", PlainTransform(65, flips=True)),
        ("mlc", PlainTransform(65, crops=True, flips=True)),
    ],
)
def test_training_images_are_made_as_the_protocol_says(configure, name, chain):
    config = configure("bam", **{"Data.protocol": name})
    assert training_data(config, fold_of(config), 0).transform == chain


def test_crops_need_not_be_flipped(configure):
    config = configure("bam", **{"Data.protocol": "mlc", "Data.protocol_options.train_chain": "crop"})
    assert training_data(config, fold_of(config), 0).transform == PlainTransform(65, crops=True)


def manifests_of(config):
    return test_episodes(config, test_fold_of(config)).manifests


def network(config, fold):
    model = build_network(config, fold.classes)
    with torch.no_grad():
        for parameter in model.meta.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {"test_protocol": "panet", "val_size": 65},
        {"test_protocol": "panet", "val_size": 65, "ways": 2},
        {"test_protocol": "pfenet", "val_size": 65, "Data.protocol_options.label_size": "original"},
        {"test_protocol": "mlc", "Test_Finetune.episodes": 3},
        {"test_protocol": "mlc", "Test_Finetune.episodes": 2, "shot": 2},
        {"ann_type": "scribble"},
        {"ann_type": "bbox", "shot": 2},
    ],
    ids=str,
)
def test_episode_counts_add_up_to_the_metrics_of_the_plain_loop(configure, changes):
    config = configure("bam", **changes)
    fold = test_fold_of(config)
    episodes = test_episodes(config, fold)
    arguments = network(config, fold), episodes
    scores = evaluate(*arguments)
    plain = evaluate_one_by_one(*arguments)
    assert [score.metrics() for score in scores] == [score.metrics() for score in plain]
    counts = counts_of(scores)
    for name in counts.names():
        if name in scores[0].metrics():
            mean = np.mean([score.metrics()[name] for score in scores])
            assert counts.value(name) == pytest.approx(mean, abs=1e-12)
    result = result_of(config, episodes, scores, method="bam", seconds=1.0)
    assert json.loads(result.model_dump_json())["protocol"] == fold.protocol.name


def episode(configure, **points):
    """Return scores under changed points and an episode whose query label is 40 x 60 at full size."""
    config = configure("bam", **{f"Data.protocol_options.{key}": value for key, value in points.items()})
    fold = test_fold_of(config)
    return Scores(fold, manifests_of(config)[0]), fold.classes.novel[0]


def certain(foreground):
    """Return a prediction that is sure."""
    logits = torch.stack([1.0 - foreground, foreground])[None]
    return Prediction(logits, {})


def test_padding_is_cut_off_where_the_label_has_none(configure):
    scores, _ = episode(configure, label_size="original", input_size=64)
    class_id = scores.manifest[0].class_ids[0]
    label = np.zeros((40, 60), np.uint8)
    label[:, :30] = class_id
    predicted = torch.zeros(64, 64)
    predicted[:40, :32] = 1  # 40 x 60 becomes 40 x 64
    scores.add(0, certain(predicted), label)
    intersection, union, target = scores.episodes["final"][0, 1].tolist()
    assert target == 1200 and intersection / union > 0.95


def test_void_counts_as_background_where_it_is_not_ignored(configure):
    for ignore, background in ((True, 12), (False, 16)):
        scores, _ = episode(configure, ignore=ignore, label_size="input")
        label = np.zeros((4, 4), np.uint8)
        label[0] = 255
        scores.add(0, certain(torch.zeros(4, 4)), label)
        assert scores.episodes["final"][0, 0, 2] == background


def test_false_positives_of_an_absent_class_count_or_not(configure):
    for count_absent, union in ((True, 16), (False, 0)):
        scores, _ = episode(configure, count_absent=count_absent, label_size="input")
        scores.add(0, certain(torch.ones(4, 4)), np.zeros((4, 4), np.uint8))
        assert scores.episodes["final"][0, 1, 1] == union


def test_selection_on_held_out_classes_never_asks_for_novel_ones(configure):
    points = {"Data.protocol_options.selection": "held_out_base", "Data.protocol_options.min_area": 1}
    config = configure("bam", **points)
    fold = fold_of(config)
    asked = {spec.class_ids[0] for spec in validation_episodes(config, fold.for_selection(), 1).manifests[0]}
    assert asked <= set(fold.classes.held_out) and not asked & set(fold.classes.novel)
    drawn = {c for candidates in training_data(config, fold, 0).lists.candidates for c in candidates}
    assert drawn <= set(fold.classes.base) and not drawn & set(fold.classes.held_out)
    assert {spec.class_ids[0] for spec in manifests_of(config)[0]} <= set(fold.classes.novel)


class TestManifestFiles:
    def written(self, configure, tmp_path, **changes):
        config = configure("bam")
        manifest = manifests_of(config)[0]
        path = tmp_path / "fold0_1shot.jsonl"
        replace(manifest, **changes).write(path)
        return path, manifest

    def read(self, configure, path, **changes):
        config = configure("bam", **{"Test_Finetune.episodes_file": path, **changes})
        return manifests_of(config)

    def test_a_file_gives_its_episodes(self, configure, tmp_path):
        path, manifest = self.written(configure, tmp_path)
        assert self.read(configure, path) == [manifest] == [read_manifest(path)]
        assert self.read(configure, tmp_path / "fold{fold}_{shot}shot.jsonl") == [manifest]

    def test_another_fold_or_data_set_is_refused(self, configure, tmp_path):
        path, _ = self.written(configure, tmp_path)
        with pytest.raises(DataError, match="drawn for fold 0, not 1"):
            self.read(configure, path, split=1)
        path, _ = self.written(configure, tmp_path, data_set="pascal")
        with pytest.raises(DataError, match="drawn for data_set pascal, not shapes"):
            self.read(configure, path)

    def test_another_protocol_is_refused(self, configure, tmp_path):
        path, _ = self.written(configure, tmp_path, protocol="hsnet")
        with pytest.raises(DataError, match="drawn for protocol hsnet, not bam"):
            self.read(configure, path)

    @pytest.mark.parametrize(
        "changes", [{"fold": False}, {"shot": 1.0}, {"ways": True}, {"seed": "1"}, {"query_order": "any"}]
    )
    def test_fields_of_other_types_are_refused(self, configure, tmp_path, changes):
        path, _ = self.written(configure, tmp_path, **changes)
        with pytest.raises(DataError, match="this is no manifest of episodes"):
            self.read(configure, path)

    def test_class_ids_are_whole_numbers(self, configure, tmp_path):
        _, manifest = self.written(configure, tmp_path)
        for odd in (float(manifest[0].class_ids[0]), True, str(manifest[0].class_ids[0])):
            spec = replace(manifest[0], class_ids=(odd,))
            path, _ = self.written(configure, tmp_path, episodes=(spec, *manifest.episodes[1:]))
            with pytest.raises(DataError, match="this is no manifest of episodes"):
                self.read(configure, path)

    def test_unknown_images_and_wrong_supports_are_named(self, configure, tmp_path):
        _, manifest = self.written(configure, tmp_path)
        first = manifest[0]
        for spec, message in (
            (replace(first, query="2007_000033"), "1 of its .* images, first 2007_000033, are not in"),
            (replace(first, class_ids=(20,)), "episode 1: fold 0 does not test class 20"),
            (replace(first, supports=((first.query,),)), "episode 1: an image is in it twice"),
        ):
            path, _ = self.written(configure, tmp_path, episodes=(spec, *manifest.episodes[1:]))
            with pytest.raises(DataError, match=message):
                self.read(configure, path)

    def test_an_edited_file_is_refused(self, configure, tmp_path):
        path, manifest = self.written(configure, tmp_path)
        path.write_text(path.read_text().replace(manifest[0].query, manifest[1].query))
        with pytest.raises(DataError, match="the file was edited"):
            self.read(configure, path)


def test_native_images_reach_the_network_at_their_own_size(configure):
    config = configure("bam", test_protocol="mlc")
    fold = test_fold_of(config)
    episodes = test_episodes(config, fold)
    planned = next(iter(episodes))
    read = episodes.load(planned)[0]
    assert read.query.shape[-2:] == episodes.store.named(planned.spec.query)[1].shape


def test_lists_follow_the_protocol_where_they_have_standard_names(plain, tmp_path):
    lists = ["train_list", f"{tmp_path}/voc_sbd_merge_noduplicate.txt", "val_list", f"{tmp_path}/val.txt"]
    (tmp_path / "trainaug.txt").write_text("2007_000032\n")
    config = load_config(plain, ["data_root", str(tmp_path), *lists, "test_protocol", "panet"])
    assert test_fold_of(config).val_list == tmp_path / "trainaug.txt"
    assert fold_of(config).val_list == tmp_path / "val.txt"
    assert test_fold_of(config).train_list == tmp_path / "voc_sbd_merge_noduplicate.txt"
    own = load_config(plain, ["data_root", str(tmp_path), *lists[:3], "mine.txt", "test_protocol", "panet"])
    assert str(test_fold_of(own).val_list) == "mine.txt"
    assert test_difference(own, test_protocol(own)) == {"test_images": ("trainaug", "own")}
    (tmp_path / "trainaug.txt").unlink()
    assert test_fold_of(config).val_list == tmp_path / "val.txt"
    assert test_difference(config, test_protocol(config)) == {"test_images": ("trainaug", "val")}


def test_what_a_file_says_of_its_own_protocol_stays_there(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "Data: {data_set: shapes, val_size: 65,"
        " protocol_options: {min_area: 9, input_size: 65, episodes: 5}}\n"
        "Method: {arch: bam}\n"
    )
    other = test_protocol(load_config(path, ["test_protocol", "hsnet"]))
    assert (other.min_area, other.input_size, other.episodes) == (9, 400, 1000)
    given = test_protocol(
        load_config(path, ["test_protocol", "hsnet", "Data.protocol_options.episodes", "7"])
    )
    assert given.episodes == 7


def test_naming_the_trainings_own_protocol_changes_nothing(configure):
    config = configure("bam", test_protocol="bam")
    assert test_protocol(config) == test_protocol(configure("bam"))
    assert test_protocol(config).input_size == 65


@pytest.mark.parametrize(
    "path", ["pascal/panet_vgg16", "pascal/hsnet_resnet50", "coco/panet_vgg16", "coco/hsnet_resnet50"]
)
def test_shipped_configs_read_the_lists_of_their_protocol(path):
    config = load_config(f"config/{path}.yaml")
    for departures in (
        test_difference(config, test_protocol(config)),
        training_difference(config, training_protocol(config)),
    ):
        assert not departures.keys() & {"train_images", "test_images", "interleaved_folds"}
