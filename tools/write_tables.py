"""Write the tables of keys and options in docs/ from the code, which describes every one of them.

    python tools/write_tables.py

The tables of docs/config.md come from the schema of the configs, those of options in docs/methods.md from the
docstrings of the methods' ``Options``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.model.create import ADAPTERS, METHODS
from fewseg.model.ensemble import BaseMetaEnsemble
from fewseg.util.config.published import UNUSED
from fewseg.util.config.schema import SECTIONS, Section

DOCS = Path(__file__).resolve().parent.parent / "docs"
OPTIONS: dict[str, type] = {name: method.Options for name, method in METHODS.items()}
OPTIONS |= {name: adapter.Options for name, adapter in ADAPTERS.items()}
OPTIONS["ensemble_options"] = BaseMetaEnsemble.Options


def with_option_tables(page: str) -> str:
    """Return the text of docs/methods.md, the table of options in every method's section replaced."""
    head = ["option", "default", "meaning"]
    for name, options in OPTIONS.items():
        before, title, after = page.partition(f"(`{name}`)\n")
        own, heading, others = after.partition("\n## ")
        table = _table(head, _option_rows(options)).replace("\\", r"\\")
        own = re.sub(r"(?m)^\| option \| default \| meaning \|\n(^\|.*\n)+", table, own, count=1)
        page = before + title + own + heading + others
    return page


def _option_rows(options: type) -> Iterator[list[str]]:
    """Yield option, default and description."""
    meanings = described(options)
    for field in fields(options):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        yield [f"`{field.name}`", str(default), meanings[field.name].replace("``", "`")]


def described(options: type) -> dict[str, str]:
    """Return option -> description, from the docstrings of a dataclass and of those that it extends."""
    meanings: dict[str, str] = {}
    for owner in reversed(options.__mro__):
        attributes = (vars(owner).get("__doc__") or "").partition("Attributes:\n")[2]
        for names, text in re.findall(r"(?m)^        (\w[\w, ]*): (.+(?:\n            .+)*)", attributes):
            if not text.startswith("see ``"):
                meanings |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return meanings


def with_key_tables(page: str) -> str:
    """Return the text of docs/config.md, every table below a heading of level 3 replaced by the schema's."""
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
    for name, with_tables in {"config.md": with_key_tables, "methods.md": with_option_tables}.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        (DOCS / name).write_text(with_tables(text), encoding="utf-8")
