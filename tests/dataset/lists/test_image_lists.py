"""Image lists, label areas and the lists that episodes draw from."""

from __future__ import annotations

import csv
import gzip
import json
import os
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.classes.split import ClassSplit, class_split
from fewseg.dataset.lists.area_index import index_masks
from fewseg.dataset.lists.image_lists import (
    ImageList,
    check_labels,
    episode_lists,
    generalized_lists,
    read_image_list,
)
from fewseg.dataset.loading.base_classes import without_novel
from fewseg.util.errors import DataError
from fewseg.util.progress import progress
from tests.dataset.lists.areas import areas_of, index_of
from tests.parity.cases import load_case


def assert_same_index(found, wanted):
    assert found.names == wanted.names
    for key in ("size", "start", "label", "area"):
        np.testing.assert_array_equal(getattr(found, key), getattr(wanted, key))


def read(root):
    return read_image_list(root, root / "ImageSets/Segmentation/train.txt")


def test_progress_is_shown_unless_told_otherwise(voc, monkeypatch):
    shown = []

    def bar(*arguments, disable, **options):
        shown.append(not disable)
        return progress(*arguments, disable=True, **options)

    monkeypatch.setattr("fewseg.util.parallel.progress_bar", bar)
    for name, options in (("2007_000001", {}), ("2007_000002", {"progress": False})):
        (voc / "ImageSets/Segmentation/train.txt").write_text(f"{name}\n")
        read(voc).index(**options)
    assert shown == [True, False]


def test_label_areas_have_the_class_that_the_list_tells(voc):
    names = ("2007_000000", "2007_000001")
    masks = tuple(f"SegmentationClass/{name}.png" for name in names)
    areas = ImageList(voc, names, names, masks, (300, 4)).index(progress=False)
    assert [areas_of(areas, i) for i in (0, 1)] == [
        {0: 39 * 35, 300: 39 * 15, 255: 50},
        {0: 39 * 20, 4: 39 * 15, 6: 39 * 15, 255: 50},
    ]


def test_the_index_counts_labels_and_is_kept_until_a_mask_changes(voc):
    first = read(voc).index(progress=False)
    assert areas_of(first, 1) == {0: 39 * 20, 1: 39 * 15, 6: 39 * 15, 255: 50}
    assert first.size.tolist() == [[40, 50]] * 6
    (stored,) = (voc / ".fewseg").iterdir()
    again = read(voc).index(progress=False)
    assert_same_index(again, first)
    written = stored.stat().st_mtime_ns
    path = voc / first.names[0]
    Image.fromarray(np.full((40, 50), 3, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    assert areas_of(read(voc).index(progress=False), 0) == {3: 2000}
    assert stored.stat().st_mtime_ns != written


def test_a_damaged_or_unwritable_cache_only_costs_time(voc, tmp_path):
    expected = read(voc).index(progress=False)
    (stored,) = (voc / ".fewseg").iterdir()
    stored.write_bytes(stored.read_bytes()[:40])
    assert_same_index(read(voc).index(progress=False), expected)
    stored.unlink()
    (voc / ".fewseg").rmdir()
    (voc / ".fewseg").write_text("a file where the folder would be")
    assert_same_index(read(voc).index(progress=False), expected)
    assert list((tmp_path / "cache" / "fewseg").glob("areas-*.npz"))


def test_workers_do_not_change_the_index(voc, monkeypatch):
    monkeypatch.setattr("fewseg.util.parallel.PARALLEL_FROM", 1)
    monkeypatch.setattr("fewseg.util.parallel.CHUNK", 2)
    names = read(voc).masks
    alone = index_masks(voc, names, workers=1, progress=False)
    (next((voc / ".fewseg").iterdir())).unlink()
    assert_same_index(index_masks(voc, names, workers=2, progress=False), alone)


def test_a_missing_mask_is_named(voc):
    (voc / "SegmentationClass/2007_000003.png").unlink()
    with pytest.raises(DataError, match=r"2007_000003\.png: the mask is missing"):
        read(voc).index(progress=False)


def test_labels_outside_the_classes_and_masks_of_nothing_but_void_are_refused(voc):
    source = read(voc)
    Image.fromarray(np.full((40, 50), 38, np.uint8)).save(voc / source.masks[2])
    with pytest.raises(DataError, match=r"2007_000002\.png: label 38 lies outside the classes 0\.\.20"):
        check_labels(source.index(progress=False), 20, voc)
    Image.fromarray(np.full((40, 50), 255, np.uint8)).save(voc / source.masks[2])
    with pytest.raises(DataError, match=r"2007_000002\.png: every pixel is void"):
        check_labels(source.index(progress=False), 20, voc)


def test_a_class_with_too_few_images_is_named_with_its_count(voc):
    source = read(voc)
    areas = source.index(progress=False)
    arguments = {"novel": True, "shot": 1, "min_area": 100}
    with pytest.raises(DataError, match=r"needs 2 images.* bicycle \(2\) has 1, bird \(3\) has 0"):
        episode_lists(source, areas, class_split("pascal", 0), **arguments)
    with pytest.warns(UserWarning, match=r"bicycle \(2\) has 1"):
        lists = episode_lists(source, areas, class_split("pascal", 0), small_classes="leave_out", **arguments)
    assert lists.classes == (1,) and lists.queries == (0, 1, 2, 3)


def test_a_class_without_images_is_left_out_with_a_warning(voc):
    source = read(voc)
    with pytest.warns(UserWarning, match=r"bus|car \(7\) has 0"):
        lists = episode_lists(
            source, source.index(progress=False), class_split("pascal", 1), novel=True, shot=2, min_area=100
        )
    assert lists.classes == (6,) and lists.supports == {6: (1, 2, 4)}
    with pytest.raises(DataError, match="no class of the fold is left"):
        episode_lists(source, source.index(progress=False), class_split("pascal", 3), novel=True, shot=1)


def recorded_areas(folder):
    """The areas of the published masks, by mask path."""
    areas = {}
    with gzip.open(folder / "class_areas.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            found = dict(pair.split(":") for pair in row["areas"].split())
            path = f"SegmentationClassAug/{row['image']}.png"
            areas[path] = (int(row["height"]), int(row["width"]), {int(c): int(n) for c, n in found.items()})
    return areas


def assert_expected_counts(folder, train, train_areas, val, val_areas):
    expected = json.loads((folder / "expected_counts.json").read_text())
    for fold in range(4):
        split = class_split("pascal", fold)
        rule = {"split": split, "shot": 5}
        found = {
            "train_drop": episode_lists(train, train_areas, novel=False, drop_unwanted=True, **rule),
            "train_keep": episode_lists(train, train_areas, novel=False, **rule),
            "val": episode_lists(val, val_areas, novel=True, **rule),
        }
        want = expected[str(fold)]
        for key, total in (
            ("train_drop", "train_drop_novel"),
            ("train_keep", "train_keep_as_background"),
            ("val", "val"),
        ):
            assert len(found[key].queries) == want[total]
            counts = {str(c): len(images) for c, images in found[key].supports.items()}
            assert counts == want[f"{key}_per_class"]


@pytest.fixture
def published(shared, tmp_path):
    """The two published lists, read against an empty root."""
    folder = shared / "splits" / "pascal"
    return folder, *(read_image_list(tmp_path, folder / f) for f in ("train_5953.txt", "val_1449.txt"))


def test_the_published_lists_have_the_expected_counts(published):
    folder, train, val = published
    areas = recorded_areas(folder)
    of_train, of_val = (index_of({m: areas[m] for m in part.masks}) for part in (train, val))
    assert_expected_counts(folder, train, of_train, val, of_val)


@pytest.mark.slow
def test_the_real_masks_have_the_expected_counts(shared, published, tmp_path):
    folder, *_ = published
    with tarfile.open(shared / "data" / "SegmentationClassAug.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    train, val = (read_image_list(tmp_path, folder / f) for f in ("train_5953.txt", "val_1449.txt"))
    assert_expected_counts(folder, train, train.index(False), val, val.index(False))
    areas = recorded_areas(folder)
    names = tuple(areas)
    measured = index_masks(tmp_path, names, progress=False)
    assert_same_index(measured, index_of(areas))


@pytest.mark.parity
def test_the_lists_of_the_small_set_equal_the_recorded_ones(parity_set):
    source, areas = parity_set
    recorded = load_case("data", "lists")[1].meta["lists"]
    cases = {
        "train_filtered": {"novel": False, "drop_unwanted": True},
        "train_unfiltered": {"novel": False},
        "val": {"novel": True},
    }
    for fold, wanted in recorded.items():
        for case, rule in cases.items():
            with pytest.warns(UserWarning):
                lists = episode_lists(source, areas, class_split("pascal", int(fold)), shot=0, **rule)
            assert list(lists.queries) == wanted[case]["images"], (fold, case)
            found = {str(c): list(images) for c, images in lists.supports.items() if images}
            assert found == wanted[case]["per_class"], (fold, case)


def test_a_generalised_query_with_base_classes_may_be_asked_for_any_novel_class(parity_set):
    source, areas = parity_set
    split = class_split("pascal", 0)
    with pytest.warns(UserWarning):
        lists = generalized_lists(source, areas, split, shot=1)
    assert lists.queries == tuple(range(8)) and lists.classes == (1, 2)
    for query, candidates in enumerate(lists.candidates):
        shown = set(areas_of(areas, query)) & set(split.novel)
        has_base = bool(set(areas_of(areas, query)) & set(split.base))
        assert set(candidates) == ({1, 2} if has_base else shown)


def test_an_image_list_knows_positions(tmp_path):
    source = ImageList(tmp_path, ("a", "b"), ("a.jpg", "b.jpg"), ("a.png", "b.png"))
    assert source.position["b"] == 1 and len(source) == 2


def test_no_training_image_shows_a_held_out_class(parity_set):
    source, areas = parity_set
    split = class_split("pascal", 0).hold_out()
    rule = {"novel": False, "shot": 0, "min_area": 1, "small_classes": "leave_out"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lists = episode_lists(source, areas, split, drop_unwanted=True, **rule)
    shown = areas.at_least(split.unseen).any(axis=1)
    assert shown.any() and not shown[list(lists.queries)].any()
    assert not set(lists.classes) & set(split.unseen)


def test_a_fold_without_base_classes_cannot_be_trained_on(voc):
    source, alone = read(voc), ClassSplit((1,), (), ("background", "aeroplane"))
    areas = index_of({name: (40, 50, {1: 4000}) for name in source.masks})
    with pytest.raises(DataError, match="the fold has no base classes to train on"):
        episode_lists(source, areas, alone, novel=False, shot=1)


def test_a_fold_whose_training_images_all_hold_novel_classes_names_the_key(voc):
    source = read(voc)
    areas = index_of({name: (9, 9, {1: 40, 6: 41}) for name in source.masks})
    with pytest.raises(DataError, match="--opts novel_in_train background"):
        episode_lists(source, areas, class_split("pascal", 0), novel=False, shot=1, drop_unwanted=True)
    with pytest.raises(DataError, match="--opts novel_in_train background"):
        without_novel(areas, class_split("pascal", 0))
