"""Folds, base labels and class names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dataset.mask import read_mask
from dataset.split import class_split
from util.errors import DataError


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


def test_a_fold_outside_the_range_names_the_range():
    with pytest.raises(DataError, match=r"split 4: data set pascal has the folds 0 to 3"):
        class_split("pascal", 4)
    with pytest.raises(DataError, match="cannot be cut into 4 folds"):
        class_split("folder", 0, names=["one", "two"])


def test_an_unknown_data_set_asks_for_names():
    with pytest.raises(DataError, match=r"data_set mine.*classes\.txt"):
        class_split("mine", 0)


def test_base_labels_equal_the_recorded_ones(shared):
    folder = shared / "parity" / "data"
    with np.load(folder / "base_labels.npz") as recorded:
        for key in recorded.files:
            fold, image = int(key[5]), key[7:]
            table = class_split("pascal", fold).base_table
            np.testing.assert_array_equal(table[read_mask(folder / "labels" / f"{image}.png")], recorded[key])


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
