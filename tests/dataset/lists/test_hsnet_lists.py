"""HSNet's fixed lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewseg.dataset.classes.fold import Fold, open_fold
from fewseg.dataset.classes.split import class_split
from fewseg.dataset.episodes.manifest import test_episodes
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.lists.hsnet_lists import read_hsnet_list
from fewseg.dataset.lists.image_lists import ImageList
from fewseg.util.errors import DataError
from tests.dataset.lists.areas import index_of


def listed(root: Path, data_set: str, number: int, names: list[str], **changes) -> Fold:
    """Return a fold whose test list holds ``names``."""
    protocol = load_protocol("hsnet", data_set)
    interleaved = data_set == "coco"
    split = changes.pop("split", None) or class_split(data_set, number, interleaved=interleaved)
    fold = Fold(data_set, number, split, protocol, root, root / "train.txt", root / "val.txt", **changes)
    fold.__dict__["val_images"] = ImageList(root, tuple(names), tuple(names), tuple(names))
    return fold


@pytest.mark.parametrize(("number", "pairs"), list(enumerate((346, 451, 725, 346))))
def test_pascal_queries_are_the_pairs_of_the_list_in_its_order(shared, tmp_path, number, pairs):
    path = shared / "splits" / "hsnet" / "pascal" / "val" / f"fold{number}.txt"
    val = (shared / "splits" / "pascal" / "val_1449.txt").read_text().split()[::2]
    fold = listed(tmp_path, "pascal", number, [Path(name).stem for name in val])
    lists, order = read_hsnet_list(path, fold)
    assert order == "pairs" and len(lists.pairs) == pairs
    text = [f"{fold.val_images.names[query]}__{c:02d}" for query, c in lists.pairs]
    assert sorted(text) == sorted(path.read_text().split())
    same_order = [
        a.split("__")[0] == b.split("__")[0] for a, b in zip(text, path.read_text().split(), strict=True)
    ]
    assert all(same_order)
    drawn = test_episodes(
        lists,
        data_set="pascal",
        fold=number,
        protocol="hsnet",
        seed=0,
        shot=1,
        episodes=pairs,
        query_order=order,
    )
    assert [f"{spec.query}__{spec.class_ids[0]:02d}" for spec in drawn] == text


def test_coco_lists_give_the_images_of_the_folds_classes(shared, tmp_path):
    path = shared / "splits" / "hsnet" / "coco" / "val.json"
    content = json.loads(path.read_text())
    for number in range(4):
        wanted = {c + 1: content["images"][str(c)] for c in content["folds"][str(number)]}
        names = sorted(
            {f"val2014/COCO_val2014_{image:012d}" for images in wanted.values() for image in images}
        )
        lists, order = read_hsnet_list(path, listed(tmp_path, "coco", number, names))
        assert order == "class" and lists.classes == class_split("coco", number, interleaved=True).novel
        assert {c: len(images) for c, images in lists.supports.items()} == {
            c: len(images) for c, images in wanted.items()
        }


def test_fss1000_classes_are_those_of_the_official_test_list(shared, tmp_path):
    folder = shared / "splits" / "hsnet" / "fss"
    train, val, test = ((folder / f"{part}.txt").read_text().split() for part in ("trn", "val", "test"))
    assert [len(part) for part in (train, val, test)] == [520, 240, 240]
    assert len({*train, *val, *test}) == 1000
    assert sorted(test) == sorted((shared / "splits" / "fss1000_test.txt").read_text().split())

    (tmp_path / "classes.txt").write_text("\n".join(sorted([*train, *val, *test])) + "\n")
    for part, classes in (("train", train), ("test", test)):
        lines = [f"{name}/{i}.jpg {name}/{i}.png" for name in classes for i in (1, 2)]
        (tmp_path / f"{part}.txt").write_text("\n".join(lines) + "\n")
    fold = open_fold(
        "fss1000",
        tmp_path,
        0,
        load_protocol("hsnet"),
        train_list=tmp_path / "train.txt",
        val_list=tmp_path / "test.txt",
    )
    assert {fold.classes.names[c] for c in fold.classes.novel} == set(test)
    assert {fold.classes.names[c] for c in fold.classes.base} == set(train)
    areas = index_of({mask: (8, 8, {0: 32, 1: 32}) for mask in fold.val_images.masks})
    fold.__dict__["val_areas"] = areas.with_class_ids(fold.val_images.class_ids)
    lists, order = read_hsnet_list(folder / "test.txt", fold)
    assert order == "pairs" and len(lists.pairs) == 480
    assert [fold.classes.names[c] for _, c in lists.pairs[::2]] == test


def test_lists_of_others_are_refused(tmp_path):
    fold = listed(tmp_path, "pascal", 0, ["2007_1", "2007_2"])
    path = tmp_path / "list.txt"
    for text, message in (
        ("2007_1__01\n2007_3__02\n", "list.txt:2: 2007_3 is not in"),
        ("2007_1__06\n", "lists class 6, which fold 0 does not test"),
        ("2007_1__01\n2007_1\n", "list.txt:2: expected image__class"),
        ("\n", "the list is empty"),
        ('{"folds": {}}', "is no list of HSNet, or has no fold 0"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_hsnet_list(path, fold)
    with pytest.raises(DataError, match="cannot be read"):
        read_hsnet_list(tmp_path / "gone.txt", fold)
