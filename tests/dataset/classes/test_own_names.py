"""Lists of class names, with and without ids."""

from __future__ import annotations

import pytest

from fewseg.dataset.classes.own_names import read_class_names, to_lines
from fewseg.util.errors import DataError


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\x1b[2J"])
def test_names_with_control_characters_are_refused(tmp_path, name):
    path = tmp_path / "classes.txt"
    path.write_text(f"cat\n{name}\n")
    with pytest.raises(DataError, match=r"classes\.txt:2: .* is no name"):
        read_class_names(path)


def test_class_names_count_from_the_background(tmp_path):
    (tmp_path / "with.txt").write_text("background\ncat\ndog\n")
    (tmp_path / "without.txt").write_text("cat\ndog\n")
    (tmp_path / "empty.txt").write_text("\n")
    assert read_class_names(tmp_path / "with.txt") == ("background", "cat", "dog")
    assert read_class_names(tmp_path / "without.txt") == ("background", "cat", "dog")
    for name in ("empty.txt", "missing.txt"):
        with pytest.raises(DataError, match=name):
            read_class_names(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfbackground\r\ncat\r\nblack dog\r\n",
        b"__background__\ncat\nblack dog\n",
        b"Background\n\ncat\nblack dog",
        b"0 nothing\n1 cat\n2 black dog\n",
        b"1: cat\n2: black dog\n",
    ],
)
def test_class_names_are_understood_in_any_usual_form(tmp_path, content):
    (tmp_path / "classes.txt").write_bytes(content)
    assert read_class_names(tmp_path / "classes.txt") == ("background", "cat", "black dog")


def test_numbers_that_do_not_count_lines_belong_to_the_names(tmp_path):
    (tmp_path / "classes.txt").write_text("7 up\n2 cv\n")
    assert read_class_names(tmp_path / "classes.txt") == ("background", "7 up", "2 cv")


def read(tmp_path, *lines):
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    return read_class_names(tmp_path / "classes.txt")


def test_names_are_bound_to_their_ids_wherever_they_stand(tmp_path):
    names = ("background", "3 series", "black dog", "7", "0")
    assert read(tmp_path, *to_lines(names)) == names
    assert read(tmp_path, *reversed(to_lines(names)[1:])) == names
    assert read(tmp_path, "background", "1 person", "2 bicycle") == ("background", "person", "bicycle")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("0 background", "1 hat", "3 bag"), r"classes\.txt: id 2 has no name.*put '2 NAME' back"),
        (("1 hat", "2 bag", "cap"), r"classes\.txt:3: cap has no id.*write 'ID cap'"),
        (("1 hat", "2 bag", "2 cap"), r"classes\.txt:3: id 2 is bag already"),
        (("0 background",), "names no class"),
    ],
)
def test_a_list_that_no_longer_fits_the_masks_is_refused_in_one_line(tmp_path, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, *lines)
    assert "\n" not in str(caught.value)
