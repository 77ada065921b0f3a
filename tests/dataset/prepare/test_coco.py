"""COCO's masks: the rules of painting, reading in pieces, resumption."""

from __future__ import annotations

import json

import numpy as np
import pytest
from draw_coco import CATEGORY_IDS, draw_coco

from dataset.mask import read_mask
from dataset.names import COCO_NAMES
from dataset.prepare import json_arrays
from dataset.prepare.coco import check_categories, paint, paint_masks, read_annotations
from dataset.prepare.json_arrays import elements, mapped
from util.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco") / "coco"
    draw_coco(root, 12, side=64, photographs=False)
    return root


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number, category, area, outline, crowd=0):
    return {"id": number, "category_id": category, "area": area, "segmentation": outline, "iscrowd": crowd}


def test_smaller_objects_lie_above_larger_ones_and_crowds_below_all():
    ids = {1: 1, 13: 12, 90: 80}
    runs = {"size": [8, 8], "counts": [0, 64]}
    found = paint(
        [
            annotation(1, 13, 4, box(0, 0, 2, 2)),
            annotation(2, 1, 16, box(0, 0, 4, 4)),
            annotation(3, 90, 9999, runs, crowd=1),
            annotation(4, 1, 4, [[1, 1, 2, 2]]),  # too few corners to be an outline
        ],
        ids,
        8,
        8,
    )
    assert found[:2, :2].tolist() == [[12, 12], [12, 12]]
    assert (found[:4, :4][2:] == 1).all() and (found[4:] == 80).all()
    assert np.bincount(found.reshape(-1)).nonzero()[0].tolist() == [1, 12, 80]


def test_ids_are_contiguous_by_category_id(drawn):
    annotations = read_annotations(drawn / "annotations/instances_val2014.json")
    assert [annotations.class_ids[c] for c in CATEGORY_IDS] == list(range(1, 81))
    assert annotations.names == COCO_NAMES
    check_categories(annotations)


def test_masks_are_those_of_the_whole_file_at_once_and_are_kept(drawn, tmp_path):
    path = drawn / "annotations/instances_train2014.json"
    annotations = read_annotations(path)
    names = paint_masks(annotations, tmp_path, workers=1, progress=False)
    whole = json.loads(path.read_text())
    images = {image["id"]: image for image in whole["images"]}
    annotated = {a["image_id"] for a in whole["annotations"]}
    assert names == sorted(images[i]["file_name"] for i in annotated) and len(names) < len(images)
    for image_id in annotated:
        image = images[image_id]
        own = [a for a in whole["annotations"] if a["image_id"] == image_id]
        wanted = paint(own, annotations.class_ids, image["height"], image["width"])
        mask = read_mask(tmp_path / image["file_name"].replace(".jpg", ".png"))
        np.testing.assert_array_equal(mask, wanted)
    first = tmp_path / names[0].replace(".jpg", ".png")
    written = first.stat().st_mtime_ns
    (tmp_path / names[1].replace(".jpg", ".png")).unlink()
    paint_masks(annotations, tmp_path, workers=1, progress=False)
    assert first.stat().st_mtime_ns == written
    assert (tmp_path / names[1].replace(".jpg", ".png")).is_file()


@pytest.mark.parametrize("window", [7, 64, 1 << 20])
def test_elements_are_found_whatever_the_window(tmp_path, monkeypatch, window):
    monkeypatch.setattr(json_arrays, "_WINDOW", window)
    path = tmp_path / "some.json"
    text = '{ "a": [ {"x": [1, 2.5]}, 17, "é]" ] , "b": {"c": [1]}, "d": [], "e":3}'
    path.write_text(text, encoding="utf-8")
    with mapped(path) as data:
        found = list(elements(data, path))
        assert [(e.key, json.loads(data[e.start : e.end])) for e in found] == [
            ("a", {"x": [1, 2.5]}),
            ("a", 17),
            ("a", "é]"),
        ]
    assert json_arrays.text(found[2].value) == "é]"


def test_bad_files_are_one_line(drawn, tmp_path):
    path = tmp_path / "instances.json"
    good = (drawn / "annotations/instances_val2014.json").read_text()
    for text, message in (
        (good[:-300], "truncated or no JSON"),
        ("", "cannot be read"),
        ('{"images": [{"id": 1}]}', "no COCO instance annotations"),
        ('{"images": []}', "no categories, images or annotations"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_annotations(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_annotations(tmp_path / "missing.json")
    other = json.loads(good)
    other["categories"] = other["categories"][:5]
    path.write_text(json.dumps(other))
    with pytest.raises(DataError, match="names 5 categories that are not COCO's 80"):
        check_categories(read_annotations(path))
