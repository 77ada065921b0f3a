"""Class names of a user's data set: ``classes.txt``, in which every name stands behind its id.

    0 background
    1 shirt
    2 black dog

Masks hold ids, so a name must never move to another id. A list without ids is read too: there line n names
class n, and removing a line gives all later classes wrong names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fewseg.util.errors import DataError, shortened
from fewseg.util.files import read_text

CLASSES_FILE = "classes.txt"
_BACKGROUND = "background"
_LONGEST = 200
_NUMBERED = re.compile(r"(\d{1,9})\s*[\s:;,=]\s*(\S.*)")
"""A line that begins with an id."""

Line = tuple[int, str]
"""Number of a line in its file, its text."""


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Read a list of class names: the name of every id, "background" first.

    Lines begin with their ids, from 0 (the background) or from 1, in any order. If no line does, line n names
    class n, and a first line "background" is line 0.

    Raises:
        DataError: the file is missing or names no class; some lines lack an id, or an id lacks a name.
    """
    lines = read_text(path, "the class names").splitlines()
    return parse_class_names(lines, path)


def parse_class_names(lines: Sequence[str], path: str | Path) -> tuple[str, ...]:
    """Return the names that the lines of a list give; see ``read_class_names``."""
    filled = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, text in filled:
        if not text.isprintable() or len(text) > _LONGEST:
            raise DataError(
                f"{path}:{number}: {shortened(text)} is no name; write it plainly, below {_LONGEST} letters"
            )
    names = _by_id(filled, path) if _has_ids(filled) else _by_line(filled)
    if len(names) < 2:
        raise DataError(f"{path}: names no class; write one name per line")
    return names


def to_lines(names: Sequence[str]) -> list[str]:
    """Return the lines of a list that binds every name to its id."""
    return [f"{class_id} {name}" for class_id, name in enumerate(names)]


def _has_ids(lines: Sequence[Line]) -> bool:
    """Whether at least half of the lines begin with an id, among them 0 or 1; else numbers are in names."""
    numbers = [int(match[1]) for _, text in lines if (match := _NUMBERED.fullmatch(text))]
    return bool({0, 1} & set(numbers)) and 2 * len(numbers) >= len(lines)


def _by_id(lines: Sequence[Line], path: str | Path) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for number, text in lines:
        match = _NUMBERED.fullmatch(text)
        if match is None and not _is_background(text):
            raise DataError(f"{path}:{number}: {text} has no id, but other lines have; write 'ID {text}'")
        class_id, name = (int(match[1]), match[2]) if match else (0, text)
        if class_id in names:
            raise DataError(
                f"{path}:{number}: id {class_id} is {names[class_id]} already; give {name} the id that masks "
                "show it with"
            )
        names[class_id] = name
    names[0] = _BACKGROUND
    missing = next((class_id for class_id in range(max(names)) if class_id not in names), None)
    if missing is not None:
        raise DataError(
            f"{path}: id {missing} has no name, but later ones have; masks hold ids, so none is ever taken "
            f"off: put '{missing} NAME' back, a class without images does no harm"
        )
    return tuple(names[class_id] for class_id in range(len(names)))


def _by_line(lines: Sequence[Line]) -> tuple[str, ...]:
    names = [text for _, text in lines]
    return (_BACKGROUND, *(names[1:] if names and _is_background(names[0]) else names))


def _is_background(text: str) -> bool:
    return text.lower().strip("_") == _BACKGROUND
