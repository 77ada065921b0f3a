"""The log file and the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fewseg.util.errors import UserError
from fewseg.util.log import get_log, log_warnings, start_log, stop_log


def test_file_and_terminal_get_the_same_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start_log(tmp_path / "run")
    get_log("config").info("epoch %d", 3)
    get_log().warning("careful")
    shown = capsys.readouterr()
    assert "epoch 3" in shown.out
    assert "careful" in shown.err
    written = (tmp_path / "run/log.txt").read_text()
    assert "INFO epoch 3\n" in written
    assert "WARNING careful\n" in written


def test_starting_again_appends_and_does_not_repeat(tmp_path: Path) -> None:
    for line in ("first", "second"):
        start_log(tmp_path).info(line)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["first", "second"]
    assert len(logging.getLogger("fewseg").handlers) == 2


def test_a_full_disk_ends_the_file_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small_files: Callable[[int], AbstractContextManager]
) -> None:
    log = start_log(tmp_path)
    with small_files(40):
        for number in range(3):
            log.info("line %d", number)
        stop_log()
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["line 0", "line 1", "line 2"]
    assert shown.err.count("\n") == 1 and "log.txt: the log ends here (File too large)" in shown.err


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        start_log(tmp_path / "file")


def test_warnings_become_lines_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_as_usual: list[str] = []

    def show(message: Warning, *_: object, **__: object) -> None:
        shown_as_usual.append(str(message))

    monkeypatch.setattr(warnings, "showwarning", show)
    log_warnings()
    start_log(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning(UserWarning("class 3 is left out"), UserWarning, "fold.py", 79)
        warnings.showwarning(DeprecationWarning("old"), DeprecationWarning, "fold.py", 80)
    assert "WARNING class 3 is left out\n" in (tmp_path / "log.txt").read_text()
    assert capsys.readouterr().err == "class 3 is left out\n"
    assert "old" in shown_as_usual  # beside warnings of Python about what earlier tests left open
    assert "class 3 is left out" not in shown_as_usual
