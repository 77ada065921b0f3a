"""One's own images and masks, in whatever layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.classes.folds_file import Folds, balanced_folds, read_folds
from fewseg.dataset.classes.own_names import read_class_names
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run_folder import prepare_folder
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.reading.mask import read_mask
from fewseg.util.errors import DataError
from tests.dataset.prepare.own_pictures import NAMES, draw, mask_of, photograph, prepare, save


def as_jpeg(folder):
    for path in folder.iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


@pytest.mark.parametrize("layout", ["index", "side by side", "class folders", "image folders"])
def test_every_layout_gives_the_same_masks_and_can_be_opened(tmp_path, layout):
    source, root = draw(tmp_path / "own", layout), tmp_path / "data"
    named = layout in ("class folders", "image folders")
    if not named:
        (source / "classes.txt").write_text("\n".join(NAMES))
    assert "3 classes, 3 folds of 1, 1, 1; train 8, val 4 images" in prepare(source, root)
    names = ("background", *(sorted(NAMES) if named else NAMES))
    assert read_class_names(root / "classes.txt") == names
    fold = open_fold("folder", root, 1, load_protocol("bam", novel_in_train="background", min_area=1))
    store = ImageStore(fold.train_images)
    for name in fold.train_images.names:
        _, mask = store.named(name)
        wanted = mask_of(int(name.removeprefix("street_")))
        own = {i: names.index(NAMES[i - 1]) for i in (1, 2, 3)}
        np.testing.assert_array_equal(mask, np.vectorize({0: 0, **own}.get)(wanted))
    assert set(fold.classes.novel) | set(fold.classes.base) == {1, 2, 3}
    assert len(fold.manifest(0, 1, episodes=3)) == 3
    assert verify("folder", root, workers=1) == []


def relaid(folder, layout):
    """Draw pictures in a layout that is but another spelling of one of the four."""
    for number in range(12):
        part, name = "train" if number < 9 else "val", f"{number}"
        image, mask = {
            "parts above": (f"{part}/images/{name}.jpg", f"{part}/masks/{name}.png"),
            "parts below": (f"images/{part}/{name}.jpg", f"masks/{part}/{name}.png"),
            "parts side by side": (f"{part}/{name}.jpg", f"{part}/{name}.png"),
            "endings": (f"images/{name}.jpg", f"masks/{name}_mask.png"),
            "endings beside": (f"{name}.png", f"{name}-label.png"),
            "capitals": (f"Images/{name}.JPG", f"Masks/{name}.PNG"),
            "wrapped": (f"all/mine/images/{name}.jpg", f"all/mine/masks/{name}.png"),
        }[layout]
        save(folder / image, photograph(number), format="PNG" if image.endswith("png") else "JPEG")
        save(folder / mask, mask_of(number), format="PNG")
    return folder


@pytest.mark.parametrize("layout", ["above", "below", "side by side"])
def test_folders_called_train_and_val_divide_the_pictures(tmp_path, layout):
    assert "train 9, val 3 images" in prepare(relaid(tmp_path / "own", f"parts {layout}"), tmp_path / "data")
    fold = open_fold("folder", tmp_path / "data", 0, load_protocol("bam", min_area=1))
    assert sorted(fold.val_images.names) == ["val/10", "val/11", "val/9"]
    _, mask = ImageStore(fold.val_images).named("val/9")
    np.testing.assert_array_equal(mask, mask_of(9))


@pytest.mark.parametrize("layout", ["endings", "endings beside", "capitals", "wrapped"])
def test_other_spellings_of_a_layout_are_understood(tmp_path, layout):
    assert "train 8, val 4 images" in prepare(relaid(tmp_path / "own", layout), tmp_path / "data")
    for number in range(12):
        mask = read_mask(tmp_path / f"data/SegmentationClass/{number}.png")
        np.testing.assert_array_equal(mask, mask_of(number))


def test_an_archive_of_a_folder_is_unpacked(tmp_path):
    relaid(tmp_path / "own", "wrapped")
    archive = shutil.make_archive(str(tmp_path / "own"), "zip", tmp_path / "own")
    options = Options(tmp_path / "data", tmp_path / "downloads", workers=1)
    assert "train 8, val 4 images" in prepare_folder(options, Path(archive))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_black_and_white_masks_in_class_folders_or_of_one_object(tmp_path, mode):
    for number in range(6):
        name = f"{NAMES[number % 2]}/{number}"
        save(tmp_path / f"own/{name}.jpg", photograph(number))
        mask = Image.fromarray((mask_of(number) > 0).astype(np.uint8) * 255).convert(mode)
        mask.save(tmp_path / f"own/{name}.png")
    assert "2 classes" in prepare(tmp_path / "own", tmp_path / "data")
    assert (tmp_path / "data/classes.txt").read_text() == "0 background\n1 hat\n2 shoe\n"
    assert set(read_mask(tmp_path / "data/SegmentationClass/shoe/1.png").flat) == {0, 2}
    assert "1 classes" in prepare(tmp_path / "own" / "hat", tmp_path / "one")
    assert read_class_names(tmp_path / "one/classes.txt") == ("background", "object")


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
        (lambda s: save(s / "masks/street 2.png", np.eye(20, 30)[..., None] * [1, 2, 3]), "has mode RGB"),
        (lambda s: as_jpeg(s / "masks"), "the masks are JPEG, which blurs class ids"),
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
    with pytest.raises(DataError, match="--val-share 2: give the share of the test images, between 0 and 1"):
        prepare(source, tmp_path / "data", share=2)
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
    made = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert [path.name for path in made] == ["made.crc32"]  # which tells the next run what this one began


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
