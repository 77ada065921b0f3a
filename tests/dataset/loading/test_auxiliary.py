"""Auxiliary images: drawn purely, never with their masks, and never changing the episodes beside them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.loading.auxiliary import ClassSets
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.loading.few_shot import EpisodeDataset
from fewseg.dataset.loading.mined import MinedImages, write_facts, write_label
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.transform import PlainTransform, TrainTransform
from fewseg.util.errors import DataError

SIZE = 65
FACTS = {"data_set": "shapes", "fold": 1}


@pytest.fixture(scope="module")
def fold(shapes):
    protocol = load_protocol("bam", min_area=60, small_classes="leave_out")
    images = shapes / "ImageSets/Segmentation/train.txt"  # more of them than in val.txt
    return open_fold("shapes", shapes, 1, protocol, val_list=images)


def dataset(fold, auxiliary=None, ways=1, transform=None):
    return EpisodeDataset(
        fold.train_lists(1),
        fold.classes,
        transform or TrainTransform(SIZE),
        shot=1,
        ways=ways,
        seed=5,
        auxiliary=auxiliary,
    )


def test_sets_are_a_pure_function_and_show_the_class_alone(fold):
    manifest, sets = fold.manifest(1, 2, ways=2, episodes=20), ClassSets(fold.test_lists(2), 3)
    drawn = [sets.draw(spec, "test", 1, number) for number, spec in enumerate(manifest)]
    assert drawn == [sets.draw(spec, "test", 1, number) for number, spec in enumerate(manifest)]
    assert drawn != [sets.draw(spec, "test", 2, number) for number, spec in enumerate(manifest)]
    position = fold.val_images.position
    for spec, ways in zip(manifest, drawn, strict=True):
        for class_id, names in zip(spec.class_ids, ways, strict=True):
            assert len(set(names)) == 3
            assert {position[name] for name in names} <= set(sets.lists.supports[class_id])
            assert not set(names) & {spec.query, *(name for way in spec.supports for name in way)}
    sets.check(2)


def test_episodes_are_the_same_with_and_without(fold):
    plain, more = dataset(fold)[0, 3], dataset(fold, ClassSets(fold.train_lists(1), 4))[0, 3]
    assert plain.specs == more.specs
    assert torch.equal(plain.episode.query, more.episode.query)
    assert torch.equal(plain.episode.support, more.episode.support)
    assert plain.episode.auxiliary is None and more.episode.auxiliary.shape == (1, 1, 4, 3, SIZE, SIZE)
    again = dataset(fold, ClassSets(fold.train_lists(1), 4))[0, 3]
    assert torch.equal(again.episode.auxiliary, more.episode.auxiliary)
    other = dataset(fold, ClassSets(fold.train_lists(1), 4))[1, 3]
    assert not torch.equal(other.episode.auxiliary, more.episode.auxiliary)


def test_masks_of_auxiliary_images_are_never_read(fold, monkeypatch):
    sets = ClassSets(fold.test_lists(1), 2)
    episodes = EpisodeSet(fold, [fold.manifest(1, 1, episodes=2)], auxiliary=sets)

    def refuse(file):
        raise AssertionError(f"{file.path} was read")

    monkeypatch.setattr("fewseg.dataset.reading.mask.ImageFile.indices", refuse)
    (_, planned), side = episodes, fold.protocol.input_size
    names = [name for name, _ in planned.auxiliary]
    assert [episodes.load_auxiliary(name).shape for name in names] == [(3, side, side)] * 2
    assert ClassSets(fold.test_lists(1), 2).read(ImageStore(fold.val_images), names[0])[1] is None


@pytest.mark.parametrize("transform", [PlainTransform(SIZE, flips=True), PlainTransform(SIZE, crops=True)])
def test_every_chain_takes_images_without_masks(fold, transform):
    episode = dataset(fold, ClassSets(fold.train_lists(1), 2), ways=2, transform=transform)[0, 0].episode
    assert episode.auxiliary.shape == (1, 2, 2, 3, SIZE, SIZE) and episode.auxiliary.isfinite().all()


def test_too_few_images_are_one_line(fold):
    sets = ClassSets(fold.train_lists(1), 500)
    with pytest.raises(
        DataError, match=r"auxiliary 500: an episode needs 502 images of its class, but class"
    ):
        sets.check(1)
    with pytest.raises(DataError, match=r"auxiliary 500: class \d+ has \d+ images that the episode does not"):
        sets.draw(dataset(fold).spec((0, 0)), "train", 0)


@pytest.fixture
def mined(fold, tmp_path):
    """Mined labels of the first ten images: their upper half is of class 3."""
    names = fold.train_images.names[:10]
    for name in names:
        label = np.zeros(fold.train_areas.size[fold.train_images.position[name]], np.uint8)
        label[: len(label) // 2] = 3
        write_label(tmp_path, name, label)
    write_facts(tmp_path, {**FACTS, "images": list(names)})
    return tmp_path


def test_mined_images_come_with_their_labels(fold, mined):
    source = MinedImages.open(mined, 2, FACTS, fold.train_images)
    data = dataset(fold, source, transform=PlainTransform(SIZE))
    batch = data[0, 0]
    assert batch.episode.auxiliary_label.shape == (1, 1, 2, SIZE, SIZE)
    assert batch.episode.auxiliary_label[0, 0, :, 0].unique().tolist() == [3]
    assert batch.episode.auxiliary_label[0, 0, :, -1].unique().tolist() == [0]
    assert torch.equal(batch.episode.query, dataset(fold, transform=PlainTransform(SIZE))[0, 0].episode.query)
    augmented = dataset(fold, source)[0, 0].episode
    assert set(augmented.auxiliary_label.unique().tolist()) <= {0, 3, 255}
    for index in range(20):
        (names,) = source.draw(data.spec((0, index)), "train", 5, 0, index)
        assert len(set(names)) == 2 and data.spec((0, index)).query not in names


def test_wrong_or_missing_mined_labels_are_one_line(fold, mined, tmp_path):
    with pytest.raises(DataError, match=r"holds no mined labels.*make them by tools/mine_latent_classes\.py"):
        MinedImages.open(tmp_path / "nowhere", 2, FACTS, fold.train_images)
    with pytest.raises(DataError, match="was mined for fold 1, not 0; mine anew"):
        MinedImages.open(mined, 2, {**FACTS, "fold": 0}, fold.train_images)
    with pytest.raises(DataError, match=r"has 10 images; lower Data\.auxiliary, which is 10"):
        MinedImages.open(mined, 10, FACTS, fold.train_images)
    write_facts(mined, {**FACTS, "images": ["elsewhere", "b", "c"]})
    with pytest.raises(DataError, match="3 of its 3 images, first elsewhere, are not in the training list"):
        MinedImages.open(mined, 2, FACTS, fold.train_images)
    write_facts(mined, {**FACTS, "images": ["../a", "b", "c"], "extra": {"../a": "a.png"}})
    with pytest.raises(DataError, match=r"mined\.json: '\.\./a' leads out of its folder"):
        MinedImages.open(mined, 2, FACTS, fold.train_images)
    (mined / "mined.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="holds no mined labels"):
        MinedImages.open(mined, 2, FACTS, fold.train_images)


def test_a_lost_label_is_named(fold, mined):
    source = MinedImages.open(mined, 2, FACTS, fold.train_images)
    shutil.rmtree(mined / "labels")
    with pytest.raises(DataError, match=r"labels/.*\.png"):
        source.read(ImageStore(fold.train_images), source.names[0])
