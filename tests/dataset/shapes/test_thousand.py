"""Shapes-1000: the same everywhere, new combinations for the test, and read as FSS-1000 is."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.shapes.thousand import Kind, draw_shapes1000, draw_single, kinds
from fewseg.engine.evaluation.baselines import every_object, known_objects
from fewseg.util.errors import DataError

STAR = Kind("striped", "holed", "star")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("thousand") / "shapes1000"
    assert draw_shapes1000(root, images=2, size=64, workers=2)
    return root


@pytest.mark.parametrize(
    ("kind", "number", "size", "digest"),
    [
        (STAR, 1, 96, "dfe54b20d0f401cc"),
        (Kind("dotted", "notched", "tee"), 10, 96, "ce008b1f82719306"),
        (Kind("plain", "quartered", "zed"), 3, 64, "a1f3efccf77d3596"),
    ],
)
def test_pixels_are_the_same_on_every_machine(kind, number, size, digest):
    picture, objects = draw_single(0, kind, number, size)
    assert hashlib.sha256(picture.tobytes() + objects.tobytes()).hexdigest()[:16] == digest


def test_test_classes_are_new_combinations_of_pairs_that_training_shows():
    parts = kinds()
    assert {part: len(classes) for part, classes in parts.items()} == {"train": 150, "val": 50, "test": 50}
    every = [kind for classes in parts.values() for kind in classes]
    assert len(set(every)) == len({kind.name for kind in every}) == 250

    def pairs(kind: Kind) -> set[tuple[str, ...]]:
        return set(combinations(kind, 2))

    shown = set().union(*map(pairs, parts["train"]))
    assert all(pairs(kind) <= shown for kind in parts["test"])


def test_it_is_read_as_fss1000_is(root):
    fold = open_fold("shapes1000", root, 0, load_protocol("hsnet", "shapes1000"))
    assert (len(fold.classes.base), len(fold.classes.novel)) == (150, 50)
    assert len(fold.val_images) == 100
    manifest = fold.manifest(0, 1, episodes=100)
    assert {spec.class_ids[0] for spec in manifest.episodes} == set(fold.classes.novel)
    assert verify("shapes1000", root, workers=0) == []


def test_the_mask_shows_the_object_of_the_class_alone(root):
    shares = []
    for part in kinds().values():
        for kind in part:
            name = f"{kind.name}/1.png"
            mask = np.array(Image.open(root / "SegmentationClass" / name))
            objects = np.array(Image.open(root / "SegmentationObject" / name))
            assert np.array_equal(mask == 1, objects == 1)
            assert set(np.unique(mask)) == {0, 1}
            assert 4 <= len(set(np.unique(objects)) - {0}) <= 7
            shares.append((mask.mean(), mask.sum() / (objects > 0).sum()))
    large, of_objects = np.mean(shares, axis=0)
    assert 0.15 < large < 0.25
    assert 0.4 < of_objects < 0.6


def test_every_object_is_known_beside_those_of_the_class(root):
    store = ImageStore(open_fold("shapes1000", root, 0, load_protocol("hsnet")).val_images)
    for name in store.source.names[:10]:
        _, label = store.named(name)
        objects = every_object(known_objects(store, name, label))
        assert objects[label > 0].all()
        assert objects.sum() > (label > 0).sum()


def test_pictures_do_not_depend_on_the_number_of_pictures(root, tmp_path):
    kind = kinds()["train"][0]
    picture, _ = draw_single(0, kind, 2, 64)
    assert np.array_equal(np.array(Image.open(root / "JPEGImages" / kind.name / "2.png")), picture)
    assert not draw_shapes1000(root, images=2, size=64)
    with pytest.raises(DataError, match=r"other settings.*images=2"):
        draw_shapes1000(root, images=3, size=64)


@pytest.mark.parametrize("wrong", [{"images": 1}, {"size": 8}, {"seed": -1}])
def test_settings_that_make_no_data_set(tmp_path, wrong):
    with pytest.raises(DataError, match="make no data set"):
        draw_shapes1000(tmp_path / "shapes1000", **wrong)
