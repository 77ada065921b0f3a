"""The embedded data set: the same everywhere, laid out as VOC, and honest."""

from __future__ import annotations

import hashlib
import os
import time

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.classes.split import class_split
from fewseg.dataset.shapes.drawing import voc_palette
from fewseg.dataset.shapes.files import draw_shapes
from fewseg.dataset.shapes.forms import CLASS_NAMES, form_and_texture
from fewseg.dataset.shapes.scene import draw_scene
from fewseg.util.errors import DataError

VOID = 255
SCENES = 240


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [draw_scene(0, index, 96) for index in range(SCENES)]


def read(path) -> np.ndarray:
    return np.array(Image.open(path))


@pytest.mark.parametrize(
    ("index", "size", "digest"),
    [
        (0, 144, "866b1a9c78c9fc98"),
        (3, 144, "daace26b5b2bcca3"),
        (1499, 144, "5fa83d6cdab4f1dc"),
        (7, 96, "ddc0875adcb7e5b9"),
    ],
)
def test_pixels_are_the_same_on_every_machine(index, size, digest):
    picture, label = draw_scene(0, index, size)
    assert hashlib.sha256(picture.tobytes() + label.tobytes()).hexdigest()[:16] == digest


def test_seed_and_index_change_the_picture():
    first, second, other_seed = draw_scene(0, 0, 64)[0], draw_scene(0, 1, 64)[0], draw_scene(1, 0, 64)[0]
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other_seed)


def test_every_fold_holds_new_combinations_of_known_forms_and_textures():
    for fold in range(4):
        split = class_split("shapes", fold)
        novel = [form_and_texture(class_id) for class_id in split.novel]
        base = [form_and_texture(class_id) for class_id in split.base]
        assert not set(novel) & set(base)
        assert len({form for form, _ in novel}) == 5
        assert {texture for _, texture in novel} == {texture for _, texture in base}
        assert {form for form, _ in novel} == {form for form, _ in base}
        assert [CLASS_NAMES[class_id] for class_id in split.novel] == [f"{t} {f}" for f, t in novel]
    assert len(set(CLASS_NAMES)) == 21


def test_layout_is_that_of_voc(tmp_path):
    assert draw_shapes(tmp_path / "shapes", images=8, size=64, workers=0)
    root = tmp_path / "shapes"
    train = (root / "ImageSets/Segmentation/train.txt").read_text().split()
    val = (root / "ImageSets/Segmentation/val.txt").read_text().split()
    assert (len(train), len(val)) == (6, 2)
    assert not set(train) & set(val)
    for number, name in enumerate(sorted(train + val)):
        picture, label = draw_scene(0, number, 64)
        mask = Image.open(root / f"SegmentationClass/{name}.png")
        assert mask.mode == "P"
        assert np.array_equal(np.array(mask), label)
        assert np.array_equal(read(root / f"JPEGImages/{name}.png"), picture)
    assert (root / "classes.txt").read_text().splitlines() == list(CLASS_NAMES)
    assert os.listdir(tmp_path) == ["shapes"]


def test_palette_is_that_of_voc():
    assert voc_palette()[[1, 2, 15, 20, 255]].tolist() == [
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]


def test_worker_count_does_not_matter(tmp_path):
    draw_shapes(tmp_path / "one", images=20, size=64, workers=0)
    draw_shapes(tmp_path / "two", images=20, size=64, workers=2)
    files = sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()
    )
    assert len(files) == 44
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_identical_set_is_left_alone_and_another_is_refused(tmp_path):
    root = tmp_path / "shapes"
    assert draw_shapes(root, images=4, size=64, workers=0)
    mask = root / "SegmentationClass/shapes_00000.png"
    before = mask.stat().st_mtime_ns
    assert not draw_shapes(root, images=4, size=64, workers=0)
    assert mask.stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"other settings.*seed=0"):
        draw_shapes(root, images=4, size=64, seed=1, workers=0)


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "photograph.jpg").touch()
    with pytest.raises(DataError, match="something other than Shapes"):
        draw_shapes(tmp_path, images=4)
    assert os.listdir(tmp_path) == ["photograph.jpg"]


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewseg.dataset.shapes.files._draw_file", full)
    with pytest.raises(DataError, match="No space left on device"):
        draw_shapes(tmp_path / "shapes", images=4, workers=0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("wrong", [{"images": 3}, {"size": 8}, {"seed": -1}])
def test_settings_that_make_no_data_set(tmp_path, wrong):
    with pytest.raises(DataError, match="make no data set"):
        draw_shapes(tmp_path / "shapes", **wrong)


def test_void_lies_between_an_object_and_all_else(scenes):
    for _, label in scenes[:40]:
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            assert np.all((one == other) | (one == VOID) | (other == VOID))
        assert 0.02 < (label == VOID).mean() < 0.35
        assert set(np.unique(label)) <= {*range(21), VOID}


def test_two_to_six_classes_from_two_folds(scenes):
    counts = []
    for _, label in scenes:
        classes = [class_id for class_id in np.unique(label) if 0 < class_id < VOID]
        counts.append(len(classes))
        assert len({(class_id - 1) // 5 for class_id in classes}) <= 2
    assert set(counts) == {2, 3, 4, 5, 6}
    assert 3.4 < np.mean(counts) < 4.2


def test_both_lists_hold_every_class_at_a_useful_size(scenes):
    areas = np.array([np.bincount(label.ravel(), minlength=256)[1:21] for _, label in scenes])
    pixels = scenes[0][1].size
    present = areas[areas > 0]
    assert np.mean(present >= 0.025 * pixels) > 0.98
    validation = np.arange(SCENES) % 4 == 3
    for part in (validation, ~validation):
        assert ((areas[part] > 0).sum(axis=0) >= 6).all()
    novel_free = [
        (areas[~validation][:, 5 * fold : 5 * fold + 5] == 0).all(axis=1).mean() for fold in range(4)
    ]
    assert min(novel_free) >= 0.5


def test_colour_does_not_tell_the_class(scenes):
    """The nearest mean colour, learnt on one half of the objects, is hardly right on the other half."""
    colours, classes = [], []
    for picture, label in scenes:
        for class_id in np.unique(label):
            if 0 < class_id < VOID:
                colours.append(picture[label == class_id].mean(axis=0))
                classes.append(class_id)
    features, truth = np.array(colours), np.array(classes)
    half = np.arange(len(truth)) % 2 == 0
    centres = np.array([features[half & (truth == class_id)].mean(axis=0) for class_id in range(1, 21)])
    distance = ((features[~half][:, None] - centres) ** 2).sum(axis=2)
    accuracy = (distance.argmin(axis=1) + 1 == truth[~half]).mean()
    assert accuracy < 0.12  # chance: 0.05


def test_drawing_is_fast():
    start = time.process_time()
    for index in range(20):
        draw_scene(2, index, 144)
    assert (time.process_time() - start) / 20 < 0.04  # 1500 pictures on 2 cores in 30 s
