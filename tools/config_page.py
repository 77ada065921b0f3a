"""Write the tables of docs/config.md from the schema of the configs, which describes every key.

python tools/config_page.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.util.config.published import UNUSED
from fewseg.util.config.schema import SECTIONS, Section

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"


def with_tables(page: str) -> str:
    """Return the text of the page, every table below a heading of level 3 replaced by the schema's."""
    tables = {name: _table(["Key", "Default", "Meaning"], _rows(keys)) for name, keys in SECTIONS.items()}
    unused = ([f"`{key}`", reason] for key, reason in UNUSED.items())
    tables["Keys without effect"] = _table(["Key", "Reason"], unused)
    for heading, table in tables.items():
        before, title, after = page.partition(f"\n### {heading}\n")
        page = before + title + re.sub(r"(?m)(^\|.*\n)+", table.replace("\\", r"\\"), after, count=1)
    return page


def _rows(section: type[Section]) -> Iterator[list[str]]:
    """Yield key, default and description, with the names that may be its value."""
    for key, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "see below" if field.is_required() else list(default) if type(default) is tuple else default
        choices = [f"`{choice}`" for choice in _choices(field.annotation)]
        meaning = " ".join((field.description or "").split()).replace("``", "`")
        yield [f"`{key}`", str(shown), meaning + (f" Values: {', '.join(choices)}." if choices else "")]


def _choices(annotation: Any) -> list[Any]:
    parts = get_args(annotation)
    return list(parts) if get_origin(annotation) is Literal else [c for part in parts for c in _choices(part)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(head), "|".join(["---"] * len(head)), *(" | ".join(row) for row in rows)]
    return "".join(f"| {line} |\n" if "---|" not in line else f"|{line}|\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
