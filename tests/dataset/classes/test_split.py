"""Folds, base labels and class names."""

from __future__ import annotations

import json

import pytest

from fewseg.dataset.classes.split import ClassSplit, class_split
from fewseg.dataset.labels import BACKGROUND, VOID
from fewseg.dataset.reading.mask import read_mask
from fewseg.util.errors import DataError
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close


def test_background_and_void_are_what_masks_hold():
    assert (BACKGROUND, VOID) == (0, 255)


def test_pascal_folds_are_runs_of_five():
    assert class_split("pascal", 2).novel == (11, 12, 13, 14, 15)
    assert class_split("pascal", 2).base == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 18, 19, 20)


def test_coco_has_two_fold_systems():
    assert class_split("coco", 1, interleaved=True).novel == tuple(range(2, 81, 4))
    assert class_split("coco", 1).novel == tuple(range(21, 41))
    names = class_split("coco", 0).names
    assert len(names) == 81 and names[1] == "person" and names[80] == "toothbrush"


@pytest.mark.parametrize("classes", [7, 20, 58])
def test_folds_of_any_folder_share_its_classes_out(classes: int):
    names = [f"class {i}" for i in range(1, classes + 1)]
    novel = [c for fold in range(4) for c in class_split("folder", fold, names=names).novel]
    assert novel == list(range(1, classes + 1))


@pytest.mark.parametrize(("classes", "folds"), [(7, 1), (7, 3), (10, 4), (20, 20)])
def test_folds_equal_those_of_a_plain_loop(classes: int, folds: int):
    names = [f"class {i}" for i in range(1, classes + 1)]
    runs: list[list[int]] = [[] for _ in range(folds)]
    turns: list[list[int]] = [[] for _ in range(folds)]
    for number in range(classes):
        turns[number % folds].append(number + 1)
        run = next(fold for fold in range(folds) if (number + 1) * folds <= (fold + 1) * classes)
        runs[run].append(number + 1)
    for fold in range(folds):
        assert list(class_split("folder", fold, folds=folds, names=names).novel) == runs[fold]
        split = class_split("folder", fold, folds=folds, names=names, interleaved=True)
        assert list(split.novel) == turns[fold]
        assert list(split.base) == [c for c in range(1, classes + 1) if c not in turns[fold]]


def test_names_may_come_with_the_background_or_without():
    names = ("background", *"abcdefgh")
    split = class_split("folder", 0, names=names)
    assert split.names == names == class_split("folder", 0, names=list("abcdefgh")).names
    assert split.novel == (1, 2) and class_split("folder", 3, names=names).novel == (7, 8)


def test_base_labels_reach_ids_beyond_8_bits():
    split = ClassSplit((299,), (1, 254, 300), tuple(map(str, range(301))))
    assert split.base_table[[0, 1, 254, 255, 299, 300]].tolist() == [0, 1, 2, 255, 0, 3]
    assert len(class_split("pascal", 0).base_table) == 256
    assert split.base_index == {1: 0, 254: 1, 300: 2}


def test_classes_of_one_name_are_told_apart_by_their_ids():
    split = ClassSplit((1,), (2, 3), ("background", "cup", "hat", "cup"))
    assert [split.label(class_id) for class_id in range(4)] == ["background", "cup (1)", "hat", "cup (3)"]


@pytest.mark.parametrize("classes", [254, 255, 300])
def test_a_label_of_8_bits_tells_at_most_254_base_classes_apart(classes: int):
    names = [f"class {i}" for i in range(1, classes + 2)]
    split = class_split("folder", 0, folds=classes + 1, names=names)
    assert split.base == tuple(range(2, classes + 2)) and split.fits_base_labels == (classes == 254)
    if classes > 254:
        with pytest.raises(
            DataError, match=f"at most 254 classes apart, but the fold has {classes} base classes"
        ):
            _ = split.base_table
    else:
        table = split.base_table
        assert table[[0, 1, 2, 254]].tolist() == [0, 0, 1, 253] and table[255] == 255


@pytest.mark.parametrize(("data_set", "classes"), [("pascal", 20), ("coco", 80), ("shapes", 20)])
def test_the_fold_after_the_last_one_trains_on_all_classes(data_set, classes):
    for interleaved in (False, True):
        split = class_split(data_set, 4, interleaved=interleaved)
        assert split.novel == split.unseen == () and split.base == tuple(range(1, classes + 1))
    assert split.base_table[classes] == classes and split.hold_out().held_out == split.base[2::5]


def test_a_fold_outside_the_range_names_the_range():
    with pytest.raises(DataError, match=r"split 5: data set pascal has the folds 0 to 4"):
        class_split("pascal", 5)
    with pytest.raises(DataError, match=r"split 4: data set folder has the folds 0 to 3"):
        class_split("folder", 4, names=[str(number) for number in range(8)])
    with pytest.raises(DataError, match="split -1: data set pascal has"):
        class_split("pascal", -1)
    for folds in (0, 3):
        with pytest.raises(DataError, match=f"2 classes cannot be cut into {folds} folds"):
            class_split("folder", 0, folds=folds, names=["one", "two"])
    with pytest.raises(DataError, match="cannot be cut into 4 folds"):
        class_split("folder", 0, names=["one", "two"])


def test_an_unknown_data_set_asks_for_names():
    with pytest.raises(DataError, match=r"data_set mine.*classes\.txt"):
        class_split("mine", 0)


@pytest.mark.parity
def test_base_labels_equal_the_recorded_ones(pictures):
    for key, recorded in load_case("data", "base_labels")[1].arrays.items():
        fold, image = int(key[5]), key[7:]
        table = class_split("pascal", fold).base_table
        assert_close(table[read_mask(pictures / "labels" / f"{image}.png")], recorded, 0, 0)


def test_coco_folds_agree_with_the_lists_of_hsnet(shared):
    recorded = json.loads((shared / "splits" / "hsnet" / "coco" / "val.json").read_text())
    for fold, classes in recorded["folds"].items():
        assert [c - 1 for c in class_split("coco", int(fold), interleaved=True).novel] == classes


def test_held_out_classes_are_neither_base_nor_novel():
    split = class_split("pascal", 1)
    held = split.hold_out()
    assert held.novel == split.novel and held.held_out == (3, 13, 18)
    assert sorted(held.base + held.held_out) == list(split.base)
    assert held.unseen == (3, 6, 7, 8, 9, 10, 13, 18)
    selection = held.for_selection()
    assert (selection.novel, selection.base, selection.unseen) == (held.held_out, held.base, held.unseen)


def test_a_fold_with_two_base_classes_holds_none_out():
    with pytest.raises(DataError, match="has 2 base classes and needs 3"):
        class_split("folder", 0, folds=2, names=("a", "b", "c", "d")).hold_out()
    three = class_split("folder", 0, folds=2, names=("a", "b", "c", "d", "e", "f"))
    assert three.hold_out().held_out == (6,)
