"""One's own images and masks, in whatever layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.fold import open_fold
from dataset.folds_file import Folds, balanced_folds, read_folds
from dataset.mask import read_mask
from dataset.prepare.options import Options
from dataset.prepare.run import prepare_folder
from dataset.prepare.verify import verify
from dataset.protocol import load_protocol
from dataset.store import ImageStore
from util.errors import DataError

NAMES = ("hat", "shoe", "bag")
SIZE = (20, 30)


def mask_of(number: int) -> np.ndarray:
    """Two of the three classes in every picture, the second inside the first."""
    mask = np.zeros(SIZE, np.uint8)
    mask[2:18, 2:20] = number % 3 + 1
    mask[5:9, 5:9] = (number + 1) % 3 + 1
    return mask


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def photograph(number: int) -> np.ndarray:
    return np.full((*SIZE, 3), 10 * number + 5, np.uint8)


def draw(folder, layout, count=12):
    """Draw pictures in one of the layouts."""
    for number in range(count):
        mask, name = mask_of(number), f"street {number}"
        if layout == "side by side":
            save(folder / f"{name}.jpg", photograph(number))
            save(folder / f"{name}.png", mask)
            continue
        save(folder / f"images/{name}.{'png' if layout == 'index' else 'bmp'}", photograph(number))
        if layout == "index":
            save(folder / f"masks/{name}.png", mask)
            continue
        for class_id in set(mask.flat) - {0}:
            inner = (
                f"{NAMES[class_id - 1]}/{name}"
                if layout == "class folders"
                else f"{name}/{NAMES[class_id - 1]}"
            )
            save(folder / f"masks/{inner}.png", (mask == class_id).astype(np.uint8) * 255)
    return folder


def prepare(source, root, **options):
    return prepare_folder(Options(root, workers=1, progress=False), source, **options)


@pytest.mark.parametrize("layout", ["index", "side by side", "class folders", "image folders"])
def test_every_layout_gives_the_same_masks_and_can_be_opened(tmp_path, layout):
    source, root = draw(tmp_path / "own", layout), tmp_path / "data"
    named = layout in ("class folders", "image folders")
    if not named:
        (source / "classes.txt").write_text("\n".join(NAMES))
    assert "3 classes, 3 folds of 1, 1, 1; train 8, val 4 images" in prepare(source, root)
    names = ("background", *(sorted(NAMES) if named else NAMES))
    assert (root / "classes.txt").read_text().split() == list(names)
    fold = open_fold("folder", root, 1, load_protocol("bam", novel_in_train="background", min_area=1))
    store = ImageStore(fold.train_images)
    for name in fold.train_images.names:
        _, mask = store.named(name)
        wanted = mask_of(int(name.removeprefix("street_")))
        own = {i: names.index(NAMES[i - 1]) for i in (1, 2, 3)}
        np.testing.assert_array_equal(mask, np.vectorize({0: 0, **own}.get)(wanted))
    assert set(fold.split.novel) | set(fold.split.base) == {1, 2, 3}
    assert len(fold.manifest(0, 1, episodes=3)) == 3
    assert verify("folder", root, workers=1, progress=False) == []


def test_preparing_again_changes_nothing_and_keeps_edited_folds(tmp_path):
    source, root = draw(tmp_path / "own", "class folders"), tmp_path / "data"
    prepare(source, root)
    (root / "folds.txt").write_text("hat, bag\nshoe\n")
    before = {
        path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != "folds.txt"
    }
    assert "2 folds of 2, 1" in prepare(source, root)
    assert {path: path.read_bytes() for path in before} == before
    assert read_folds(root / "folds.txt", ("background", *sorted(NAMES))).novel == ((1, 2), (3,))
    assert "3 folds" in prepare(source, root, folds=3)


def test_lists_of_the_folder_are_kept_and_ones_of_others_refused(tmp_path):
    source = draw(tmp_path / "own", "index")
    (source / "train.txt").write_text("street 3.png\nstreet 4\n")
    (source / "test.txt").write_text("\n".join(f"street {i}" for i in (5, 6, 7)))
    assert "train 2, val 3 images" in prepare(source, tmp_path / "data")
    (source / "train.txt").write_text("street 99\n")
    with pytest.raises(DataError, match=r"train\.txt:1: street_99 has no image with a mask"):
        prepare(source, tmp_path / "other")


def test_every_class_is_in_both_parts_if_it_can_be(tmp_path):
    root = tmp_path / "data"
    prepare(draw(tmp_path / "own", "index", 7), root, share=0.2, seed=3)
    for part in ("train", "val"):
        lines = (root / f"ImageSets/Segmentation/{part}.txt").read_text().split()[1::2]
        assert {int(v) for line in lines for v in np.unique(read_mask(root / line))} >= {1, 2, 3}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: shutil.rmtree(s / "masks"), "no image with a mask"),
        (
            lambda s: (s / "classes.txt").write_text("hat\nshoe\n"),
            "8 pictures cannot be used: .*label 3 lies outside",
        ),
        (lambda s: (s / "images/street 1.png").write_bytes(b"\x89PNG"), "the image is corrupt or truncated"),
        (lambda s: save(s / "masks/street 2.png", mask_of(2)[:10]), "the mask is 30x10, but its image"),
        (lambda s: save(s / "masks/street 2.png", photograph(1)), "the mask has mode RGB"),
        (lambda s: save(s / "images/street 2.jpg", photograph(1)), "same name with another suffix"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, spoil, message):
    source = draw(tmp_path / "own", "index")
    (source / "classes.txt").write_text("\n".join(NAMES))
    spoil(source)
    with pytest.raises(DataError, match=message) as caught:
        prepare(source, tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_class_lists_roots_and_folds_that_do_not_fit(tmp_path):
    source = draw(tmp_path / "own", "class folders")
    (tmp_path / "few.txt").write_text("hat\nshoe\n")
    with pytest.raises(DataError, match="does not name bag, which"):
        prepare(source, tmp_path / "data", classes=tmp_path / "few.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be the data root .it is a file"):
        prepare(source, tmp_path / "file")
    with pytest.raises(DataError, match="a file, not a folder"):
        prepare(tmp_path / "file", tmp_path / "data")
    with pytest.raises(DataError, match="3 classes with images cannot be cut into 4 folds"):
        prepare(source, tmp_path / "data", folds=4)


def test_a_disk_that_is_full_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    source = draw(tmp_path / "own", "class folders")

    def full(self, file, *_, **__):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space"):
        prepare(source, tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


class TestFolds:
    NAMES = ("background", "hat", "shoe", "bag", "12", "a, b")

    def test_classes_are_dealt_by_how_often_they_occur(self):
        found = balanced_folds({1: 9, 2: 5, 3: 4, 4: 1, 5: 0}, 2, self.NAMES)
        assert found.novel == ((1, 4), (2, 3))

    def test_what_is_written_is_read(self, tmp_path):
        folds = Folds(((1, 4), (2, 5)), self.NAMES)
        folds.write(tmp_path / "folds.txt")
        assert read_folds(tmp_path / "folds.txt", self.NAMES) == folds
        split = folds.split(1)
        assert (split.novel, split.base) == ((2, 5), (1, 3, 4))
        with pytest.raises(DataError, match="the folds 0 to 1"):
            folds.split(2)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("hat\ncap\n", r"folds\.txt:2: there is no class cap"),
            ("hat\nhat, bag\n", r":2: hat is a novel class twice"),
            ("# nothing\n", "names no fold"),
            ("hat\n , \n", ":2: the fold is empty"),
            ("7\n", "there is no class 7"),
        ],
    )
    def test_mistakes_are_named_with_their_line(self, tmp_path, text, message):
        (tmp_path / "folds.txt").write_text(text)
        with pytest.raises(DataError, match=message):
            read_folds(tmp_path / "folds.txt", self.NAMES)
