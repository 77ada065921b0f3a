"""Files are written whole or not at all, and what a killed write left can be removed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fewseg.util.errors import UserError
from fewseg.util.files import remove_leftovers, write_text


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, small_files: Callable[[int], AbstractContextManager]
) -> None:
    write_text(tmp_path / "a.txt", "before")
    with small_files(100), pytest.raises(UserError, match=r"File too large.*free space"):
        write_text(tmp_path / "a.txt", "x" * 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_only_leftovers_of_the_named_files_are_removed(tmp_path: Path) -> None:
    kept = ["best.safetensors", ".other.json.x1.part", ".best.safetensors", "best.safetensors.part"]
    for name in (*kept, ".best.safetensors.abc12.part", ".[1].txt.abc.part"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, ["best.safetensors", "[1].txt"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
