"""Reading a list of images."""

from __future__ import annotations

import pytest

from fewseg.dataset.lists.image_lists import read_image_list
from fewseg.util.errors import DataError


def read(root, path="ImageSets/Segmentation/train.txt"):
    return read_image_list(root, root / path)


def test_ids_and_published_lines_name_the_same_files(voc):
    ids = read(voc)
    lines = [f"{image} {mask}" for image, mask in zip(ids.images, ids.masks, strict=True)]
    (voc / "lines.txt").write_text("\n".join(lines))
    assert read(voc, "lines.txt") == ids
    assert ids.images[0] == "JPEGImages/2007_000000.jpg" and ids.names[5] == "2007_000005"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("", "is empty"),
        ("../2007_000000\n", r"list\.txt:1: '\.\./2007_000000' leads out of its folder"),
        ("a.jpg a.png\nb.jpg m/../../b.png\n", r"list\.txt:2: 'm/\.\./\.\./b\.png' leads out of its folder"),
        ("/data/a.jpg m/a.png\n", r"list\.txt:1: '/data/a\.jpg' leads out of its folder"),
        ("a b c\n", r"list\.txt:1: expected an image id or 'image mask', found 3 fields"),
        ("\n2007_000000\na.jpg b.jpg c\n", r"list\.txt:3: expected an image id"),
        ("JPEGImages/a.jpg m/a.png\nJPEGImages/a.png m/a.png\n", r":2: a is listed before with other files"),
    ],
)
def test_a_bad_list_is_one_line(voc, content, message):
    if content is not None:
        (voc / "list.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read(voc, "list.txt")


def test_repeated_lines_count_once(voc):
    (voc / "list.txt").write_text("2007_000003\n2007_000001\n2007_000003\n" * 2)
    with pytest.warns(UserWarning, match=r"list\.txt: 4 lines repeat an earlier one and are left out"):
        assert read(voc, "list.txt").names == ("2007_000003", "2007_000001")


def test_the_warning_points_at_the_caller(voc):
    (voc / "list.txt").write_text("2007_000003\n2007_000003\n")
    with pytest.warns(UserWarning) as warned:
        read_image_list(voc, voc / "list.txt")
    assert warned[0].filename == __file__


def test_ids_and_pairs_of_paths_may_stand_in_one_list(voc):
    (voc / "list.txt").write_text("\ufeff2007_000003\n\nphotos/b.c.jpeg masks/d.png\n", encoding="utf-8")
    found = read(voc, "list.txt")
    assert found.names == ("2007_000003", "photos/b.c") and found.images[1] == "photos/b.c.jpeg"
    assert found.masks == ("SegmentationClass/2007_000003.png", "masks/d.png")


def test_a_list_that_is_no_text_is_told_from_one_that_is_missing(voc):
    (voc / "list.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"cannot be read \(not a text file\)"):
        read(voc, "list.txt")
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\)"):
        read(voc, "other.txt")


@pytest.mark.parametrize(
    ("files", "suffix"),
    [
        ((), ".jpg"),
        (("a.png",), ".png"),
        (("a.jpeg",), ".jpeg"),
        (("a.png", "b.jpg", "c.jpeg"), ".jpg"),
        (("a.jpeg", "c.png", "d.txt"), ".png"),
    ],
)
def test_the_suffix_of_images_is_that_of_the_folder(tmp_path, files, suffix):
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (tmp_path / folder).mkdir()
    for file in files:
        (tmp_path / "JPEGImages" / file).touch()
    (tmp_path / "list.txt").write_text("x\n")
    found = read(tmp_path, "list.txt")
    assert found.images == (f"JPEGImages/x{suffix}",) and found.masks == ("SegmentationClassAug/x.png",)


@pytest.mark.parametrize("missing", ["JPEGImages", "SegmentationClass"])
def test_ids_need_the_folders_of_voc(voc, missing):
    (voc / missing).rename(voc / "elsewhere")
    with pytest.raises(DataError, match="needs the folders JPEGImages and SegmentationClassAug or Seg"):
        read(voc)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: the data root is missing"):
        read_image_list(tmp_path / "nowhere", tmp_path / "list.txt")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "a\x1b[2Jb"])
def test_names_that_are_none_are_refused(voc, name):
    (voc / "odd.txt").write_text(f"2007_000000\n{name}\n")
    with pytest.raises(DataError, match=r"odd\.txt:2: .* is no file's name") as caught:
        read(voc, "odd.txt")
    assert len(str(caught.value)) < 300
