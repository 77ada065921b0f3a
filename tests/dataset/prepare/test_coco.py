"""COCO's masks: the rules of painting, reading, resumption."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest

from fewseg.dataset.classes.shared_names import COCO_NAMES
from fewseg.dataset.prepare import coco
from fewseg.dataset.prepare.coco import check_categories, paint, paint_masks, read_annotations
from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run_coco import prepare_coco
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.reading.mask import read_mask
from fewseg.util.errors import DataError
from tests.tools.draw_coco import CATEGORY_IDS, draw_coco

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
    names = paint_masks(annotations, tmp_path, workers=1)
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
    paint_masks(annotations, tmp_path, workers=1)
    assert first.stat().st_mtime_ns == written
    assert (tmp_path / names[1].replace(".jpg", ".png")).is_file()


def test_other_keys_and_any_order_of_the_arrays_are_read(tmp_path):
    path = tmp_path / "instances.json"
    outline = annotation(7, 4, 4, box(0, 0, 2, 2)) | {"image_id": 3, "more": {"x": [1, 2.5]}}
    image = {"id": 3, "file_name": "é].jpg", "height": 8, "width": 6}
    parts = {"annotations": [outline], "info": {"c": [1]}, "none": [], "images": [image], "n": 3}
    categories = [{"id": 4, "name": "crème"}]
    path.write_text(json.dumps(parts | {"categories": categories}, ensure_ascii=False), encoding="utf-8")
    found = read_annotations(path)
    assert found.names == ("background", "crème") and found.class_ids == {4: 1} and found.images == 1
    (job,) = found.jobs
    assert (job.name, job.height, job.width) == ("é].jpg", 8, 6)
    assert [json.loads(text) for text in job.annotations] == [outline]
    parts["images"] = [image | {"id": 4}]
    path.write_text(json.dumps(parts | {"categories": categories}))
    with pytest.raises(DataError, match="image 3 is annotated but not listed"):
        read_annotations(path)


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


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A drawn COCO with photographs, its counts taken for the official ones."""
    source = tmp_path / "coco"
    draw_coco(source, 24, side=64)
    counts = {"train2014": (16, 15), "val2014": (8, 7)}
    monkeypatch.setattr(coco, "COUNTS", counts)
    listed = {"train": 15, "val": 7}
    monkeypatch.setitem(
        __import__("fewseg.dataset.prepare.verify", fromlist=["COUNTS"]).COUNTS, "coco", listed
    )
    return source


def options(tmp_path, root="root", **given):
    lists = tmp_path / f"{root}-lists"
    return Options(tmp_path / root, tmp_path / "downloads", lists, workers=1, **given)


def pack(source, folder):
    """Make the official archives; return their checksums."""
    sums = {}
    for key, archive in coco.ARCHIVES.items():
        path = folder / archive.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as file:
            for member in sorted((source / key).rglob("*")):
                file.write(member, member.relative_to(source))
        sums[archive.name] = "md5:" + hashlib.md5(path.read_bytes()).hexdigest()
    return sums


def test_from_folders_then_from_the_masks_alone(official, tmp_path):
    assert "train 15, val 7 images" in prepare_coco(options(tmp_path), official)
    assert len((tmp_path / "root-lists/train.txt").read_text().splitlines()) == 15
    serious = [f for f in verify("coco", tmp_path / "root", workers=1) if f.serious]
    assert {f.problem for f in serious} <= {
        "same image in training and test",  # drawn in one colour each
        "class without a pixel in any list",
    }
    masks = tmp_path / "masks"
    for part in ("train2014", "val2014"):
        shutil.copytree(tmp_path / "root" / "annotations" / part, masks / "annotations" / part)
        (masks / part).symlink_to(official / part)
    assert "train 15, val 7 images" in prepare_coco(options(tmp_path, "other"), masks)
    for part in ("train", "val"):
        lists = [tmp_path / f"{root}-lists/{part}.txt" for root in ("root", "other")]
        assert lists[0].read_text() == lists[1].read_text()


def test_from_archives_of_a_mirror_or_at_hand(official, tmp_path, server):
    sums = pack(official, tmp_path / "zips")
    server.content = {path.name: path.read_bytes() for path in (tmp_path / "zips").iterdir()}
    said = prepare_coco(options(tmp_path, mirrors=[server.mirror("good")], checksums=sums))
    assert "train 15, val 7 images" in said
    assert "train 15" in prepare_coco(options(tmp_path, "local", checksums=sums), tmp_path / "zips")
    with pytest.raises(DataError, match=r"train2014\.zip: wrong checksum, md5:\w+ instead of md5:0da8"):
        prepare_coco(options(tmp_path, "wrong"), tmp_path / "zips")


def test_an_interrupted_unpacking_is_completed(official, tmp_path):
    sums = pack(official, tmp_path / "downloads")
    prepare_coco(options(tmp_path, checksums=sums))
    root = tmp_path / "root"
    done = root / ".fewseg/train2014.zip.unpacked"
    done.rename(root / ".fewseg/train2014.zip.begun")  # as a killed run leaves it
    next((root / "train2014").iterdir()).unlink()
    assert "train 15" in prepare_coco(options(tmp_path, checksums=sums))
    assert done.is_file() and len(list((root / "train2014").iterdir())) == 16


def test_counts_are_asserted(official, tmp_path):
    next(path for path in sorted((official / "val2014").iterdir())).unlink()
    with pytest.raises(DataError, match=r"1 images are missing, first COCO_val2014_000000000001\.jpg"):
        prepare_coco(options(tmp_path), official)
    assert "val 6 images" in prepare_coco(options(tmp_path, subset=True), official)
    coco.COUNTS["train2014"] = (82783, 82081)
    with pytest.raises(DataError, match="16 images, 15 of them annotated, instead of 82783 and 82081"):
        prepare_coco(options(tmp_path), official)
