"""Names that are read from files never lead out of the folder that they belong to."""

from __future__ import annotations

import pytest

from fewseg.util.errors import DataError
from fewseg.util.files import is_inside, require_inside


@pytest.mark.parametrize("name", ["a", "a/b.png", "a/..b/c..", "...", "a.b/./c"])
def test_names_below_the_folder_are_taken(name):
    assert require_inside(name, "list.txt:1") == name


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "a/..", ".."])
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(DataError, match=r"list\.txt:7: .* leads out of its folder"):
        require_inside(name, "list.txt:7")


@pytest.mark.parametrize("name", ["", ".", "a\0b", "a\nb", "x" * 300, "x/" * 3000])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(DataError, match=r"list\.txt:7: .* is no file's name"):
        require_inside(name, "list.txt:7")


def test_links_are_followed_before_writing(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    assert is_inside(tmp_path / "root", tmp_path / "root" / "file")
    assert not is_inside(tmp_path / "root", tmp_path / "root" / "link" / "file")
    assert not is_inside(tmp_path / "root", tmp_path / "root" / ".." / "file")
