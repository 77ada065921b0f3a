"""The pages say what the code has: every method, every option with its default, no link into the void."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fewseg.model.create import ADAPTERS, METHODS
from fewseg.util.config.published import SPELLINGS
from fewseg.util.config.schema import SECTIONS
from tools.config_page import PAGE, with_tables

ROOT = Path(__file__).resolve().parents[1]
METHODS_PAGE = ROOT / "docs" / "methods.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = {name: part.Options for name, part in {**METHODS, **ADAPTERS}.items()}


def section(name: str) -> str:
    """Return the text under the heading of docs/methods.md that names the method in backticks."""
    parts = re.split(r"^## (.+)$", METHODS_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [text for title, text in zip(parts[1::2], parts[2::2], strict=True) if f"(`{name}`)" in title]
    assert len(found) == 1, f"docs/methods.md needs one section '## ... (`{name}`)', has {len(found)}"
    return found[0]


def option_table(text: str) -> dict[str, str]:
    """Return name -> default of the rows of the table 'option | default | meaning'."""
    table = re.search(r"^\| option \| default \| meaning \|\n\|[-|]+\|\n((?:\|.*\n)*)", text, re.MULTILINE)
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", table[1], re.MULTILINE)) if table else {}


def written(default: object) -> str:
    return str(list(default) if isinstance(default, tuple) else default)


def links(page: Path) -> list[str]:
    """Return the relative targets of a page's links and pictures, code left out."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_stands_in_its_method_s_section_with_its_default(name: str) -> None:
    expected = {field.name: written(field.default) for field in fields(OPTIONS[name])}
    assert option_table(section(name)) == expected


def test_config_page_describes_every_key_as_the_schema_does() -> None:
    page = PAGE.read_text(encoding="utf-8")
    undescribed = [
        f"{name}.{key}"
        for name, schema in SECTIONS.items()
        for key, field in schema.model_fields.items()
        if not field.description
    ]
    assert not undescribed, "write a docstring below the key in util/config/schema.py"
    assert page == with_tables(page), "run python tools/config_page.py"
    assert [key for key in SPELLINGS if f"`{key}" not in page] == []


def test_config_page_is_found_out_where_a_table_differs() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page.replace("| `shot` | 1 |", "| `shot` | 2 |")) == page
    assert with_tables(page.replace("| `train_gpu` |", "| `train_gpus` |")) == page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_point_to_files(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert not missing, f"{page.relative_to(ROOT)} links to what is not there: {', '.join(missing)}"


def test_configs_of_the_methods_page_exist() -> None:
    patterns = re.findall(r"`(config/[\w*/]+\.yaml)`", METHODS_PAGE.read_text(encoding="utf-8"))
    assert patterns
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []
