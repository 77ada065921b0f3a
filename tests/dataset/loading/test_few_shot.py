"""Episodes, base labels and test images as tensors."""

from __future__ import annotations

import itertools
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.loading.base_classes import BaseDataset, BaseEvaluation, without_novel
from fewseg.dataset.loading.batches import EpochBatches, as_loaded
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.loading.few_shot import EpisodeDataset, support_label
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.transform import Resize, TrainTransform, square_label
from fewseg.model.contract import UNLABELLED
from fewseg.util.errors import ConfigError, DataError

SIZE = 65


@pytest.fixture(scope="module")
def fold(shapes):
    return open_fold("shapes", shapes, 1, load_protocol("bam", min_area=60, small_classes="leave_out"))


@pytest.fixture
def episodes(fold):
    transform = TrainTransform(SIZE)
    return EpisodeDataset(fold.train_lists(2), fold.classes, transform, shot=2, seed=5)


def load(dataset, join, workers=0, batch_size=4, rank=0, processes=1, start=(0, 0)):
    batches = EpochBatches(len(dataset), batch_size, rank, processes)
    batches.start(*start)
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=workers, collate_fn=join)
    return list(itertools.islice(loader, 3))


def test_an_episode_keeps_the_contract(fold, episodes):
    batch = load(episodes, as_loaded)[0]
    episode = batch.episode
    assert episode.query.shape == (4, 3, SIZE, SIZE) and episode.query.dtype == torch.float32
    assert episode.support.shape == (4, 1, 2, 3, SIZE, SIZE)
    assert episode.support_mask.shape == (4, 1, 2, SIZE, SIZE) and episode.support_mask.dtype == torch.int64
    assert set(episode.support_mask.unique().tolist()) <= {0, 1, 255}
    assert set(episode.query_mask.unique().tolist()) <= {0, 1, 255}
    for row, spec in enumerate(batch.specs):
        class_id = spec.class_ids[0]
        assert episode.class_id[row].tolist() == [class_id]
        index = fold.classes.base.index(class_id)
        assert episode.class_index[row].tolist() == [index]
        base, mask = episode.base_label[row], episode.query_mask[row]
        assert torch.equal(base == index + 1, mask == 1) and torch.equal(base == 255, mask == 255)
        assert batch.names[row] == f"{spec.query} <- {', '.join(spec.supports[0])}"


def test_several_ways_are_labelled_in_their_order(fold):
    dataset = EpisodeDataset(fold.train_lists(1), fold.classes, TrainTransform(SIZE), shot=1, ways=3, seed=5)
    (first, *_) = load(dataset, as_loaded, batch_size=2)
    episode = first.episode
    assert episode.support.shape[:3] == (2, 3, 1) and episode.class_id.shape == (2, 3)
    assert set(episode.support_mask.unique().tolist()) <= {0, 1, UNLABELLED, 255}
    for row in range(2):
        for way, index in enumerate(episode.class_index[row].tolist(), 1):
            assert torch.equal(episode.query_mask[row] == way, episode.base_label[row] == index + 1)


def test_a_query_keeps_its_number_from_epoch_to_epoch(episodes):
    names: dict[int, str] = {}
    for epoch in range(2):
        for index in range(len(episodes)):
            number, name = episodes._order.item(epoch, index), episodes.spec((epoch, index)).query
            assert names.setdefault(number, name) == name
    assert sorted(names) == list(range(len(episodes)))
    batch = episodes[1, 0]
    assert names[batch.episode.query_number.item()] == batch.specs[0].query


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        assert one.specs == other.specs
        assert torch.equal(one.episode.query, other.episode.query)
        assert torch.equal(one.episode.support, other.episode.support)
        assert torch.equal(one.episode.base_label, other.episode.base_label)


def test_workers_batches_and_restarts_never_change_an_episode(episodes):
    alone = load(episodes, as_loaded)
    assert_same(alone, load(episodes, as_loaded, workers=2))
    assert_same(alone[1:], load(episodes, as_loaded, start=(0, 1))[:2])
    single = [episodes[0, i].episode.query for i in range(4)]
    random.seed(1)
    np.random.seed(1)
    assert torch.equal(torch.cat(single), alone[0].episode.query)
    halves = [load(episodes, as_loaded, rank=rank, processes=2)[0] for rank in range(2)]
    assert [halves[i % 2].specs[i // 2] for i in range(4)] == list(alone[0].specs)
    assert alone[0].specs != load(episodes, as_loaded, start=(1, 0))[0].specs


def test_a_cache_changes_nothing_and_keeps_to_its_budget(fold, episodes):
    budget = 300_000
    cached = EpisodeDataset(
        fold.train_lists(2), fold.classes, TrainTransform(SIZE), shot=2, seed=5, cache_bytes=budget
    )
    for _ in range(2):
        assert_same(load(episodes, as_loaded), load(cached, as_loaded))
    kept = sum(image.nbytes + mask.nbytes for image, mask in cached.store._kept.values())
    assert 0 < kept <= budget


def test_batches_must_fit_processes_and_list():
    with pytest.raises(ConfigError, match=r"Train\.batch_size 8: must be a multiple of the 3 processes"):
        EpochBatches(100, 8, 0, 3)
    with pytest.raises(ConfigError, match="the training list has only 5 images"):
        EpochBatches(5, 8)


def test_stage_1_keeps_every_image_and_makes_novel_classes_background(fold):
    store = ImageStore(fold.train_images)
    dataset = BaseDataset(store, fold.classes, TrainTransform(SIZE, (0.5, 2.0)), seed=3)
    assert len(dataset) == len(fold.train_images)
    one, other = load(dataset, as_loaded), load(dataset, as_loaded, workers=1)
    for left, right in zip(one, other, strict=True):
        assert left.names == right.names and torch.equal(left.image, right.image)
        assert torch.equal(left.label, right.label)
        assert set(left.label.unique().tolist()) <= {*range(len(fold.classes.base) + 1), 255}
    kept = without_novel(fold.train_areas, fold.classes)
    assert 0 < len(kept) < len(dataset)
    assert len(BaseDataset(store, fold.classes, TrainTransform(SIZE), seed=3, positions=kept)) == len(kept)


def test_stage_1_is_validated_on_every_image_once(fold):
    dataset = BaseEvaluation(ImageStore(fold.val_images), fold.classes, Resize(SIZE))
    batch = next(iter(DataLoader(dataset, batch_size=3, collate_fn=as_loaded)))
    assert batch.names == fold.val_images.names[:3] and len(dataset) == len(fold.val_images)
    assert batch.image.shape == (3, 3, SIZE, SIZE) and batch.label.shape == (3, SIZE, SIZE)


def test_test_images_come_one_by_one(fold):
    store = ImageStore(fold.val_images)
    manifest = fold.manifest(seed=1, shot=1, episodes=3)
    spec, original = manifest[2], store.named(manifest[2].query)[1]
    labels = {"original": original, "square": square_label(original), "input": Resize(SIZE).label(original)}
    for label_size, expected in labels.items():
        protocol = fold.protocol.with_overrides(input_size=SIZE, label_size=label_size)
        episodes = EpisodeSet(replace(fold, protocol=protocol), [manifest])
        image, label = episodes.load_query(spec.query)
        np.testing.assert_array_equal(label, expected)
        episode, again = episodes.load([*episodes][2])
        np.testing.assert_array_equal(again, expected)
        assert image.shape == (3, SIZE, SIZE) and episode.query_padding.shape == (1, SIZE, SIZE)
    image, mask = episodes.load_support(spec.supports[0][0], spec.class_ids[0])
    assert image.shape == (3, SIZE, SIZE) and mask.dtype == torch.int64 and (mask == 1).any()


def test_a_fold_draws_the_manifest_of_its_protocol(fold):
    manifest = fold.manifest(seed=1, shot=1)
    assert len(manifest) == 1000 and manifest.protocol == "bam" and manifest.fold == 1
    assert {c for spec in manifest for c in spec.class_ids} <= set(fold.classes.novel)
    generalized = fold.manifest(seed=1, shot=1, episodes=30, generalized=True)
    assert [s.query for s in generalized] == [
        fold.val_images.names[i % len(fold.val_images)] for i in range(30)
    ]
    assert generalized.hash != manifest.hash


def test_boxes_replace_every_part_and_leave_void_alone():
    mask = np.zeros((8, 10), np.uint8)
    mask[1, 1] = mask[2, 2] = 7
    mask[5:7, 6] = 7
    mask[0, 0] = 255
    wanted = np.zeros((8, 10), np.uint8)
    wanted[1:4, 1:4] = wanted[5:8, 6:8] = 1
    wanted[0, 0] = 255
    np.testing.assert_array_equal(support_label(mask, 7, "bbox"), wanted)
    assert support_label(mask, 7, void="background")[0, 0] == 0
    with pytest.raises(DataError, match="ann_type doodle: known are mask, bbox"):
        support_label(mask, 7, "doodle")


def test_an_image_of_another_size_than_its_mask_stops_with_both_names(fold, tmp_path):
    from PIL import Image

    for part in ("JPEGImages", "SegmentationClass"):
        (tmp_path / part).mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "JPEGImages/a.jpg")
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "list.txt").write_text("a\n")
    opened = open_fold("shapes", tmp_path, 0, fold.protocol, train_list=tmp_path / "list.txt")
    with pytest.raises(DataError, match=r"a\.png: the mask is 31x20, but its image .*a\.jpg is 30x20"):
        ImageStore(opened.train_images).named("a")


def test_a_small_real_set_survives_absent_classes(shared, tmp_path):
    root = shared / "data" / "pascal_mini"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets"):
        (tmp_path / name).symlink_to(root / name)
    protocol = load_protocol("bam", min_area=840)
    with pytest.raises(DataError, match=r"needs 2 images.*train \(19\) has 1"):
        open_fold("pascal", tmp_path, 1, protocol).train_lists(1)
    opened = open_fold("pascal", tmp_path, 1, protocol.with_overrides(small_classes="leave_out"))
    with pytest.warns(UserWarning, match=r"aeroplane \(1\) has 0"):
        lists = opened.train_lists(1)
    dataset = EpisodeDataset(lists, opened.classes, TrainTransform(SIZE), shot=1, seed=0)
    assert load(dataset, as_loaded)[0].episode.query.isfinite().all()
    with pytest.warns(UserWarning, match=r"bus \(6\) has 1"):
        assert {spec.class_ids[0] for spec in opened.manifest(seed=0, shot=5, episodes=50)} == {8, 9, 10}


def test_a_mask_that_changed_since_the_lists_were_opened_is_refused_when_it_is_read(fold, tmp_path):
    from PIL import Image

    source = fold.val_images
    for part in (source.images[0], source.masks[0]):
        (tmp_path / part).parent.mkdir(parents=True)
        shutil.copy(source.root / part, tmp_path / part)
    (tmp_path / "list.txt").write_text(f"{source.names[0]}\n")
    opened = open_fold("shapes", tmp_path, 1, fold.protocol, val_list=tmp_path / "list.txt")
    assert opened.val_areas is not None
    mask = np.array(Image.open(tmp_path / source.masks[0]))
    mask[0, 0] = 21
    Image.fromarray(mask).save(tmp_path / source.masks[0])
    with pytest.raises(DataError, match=r"png: label 21 lies outside the classes 0\.\.20 and 255; a palette"):
        EpisodeSet(opened, []).load_query(source.names[0])
    mask[0, 0] = 20
    Image.fromarray(mask).save(tmp_path / source.masks[0])
    assert EpisodeSet(opened, []).load_query(source.names[0])[1][0, 0] == 20
