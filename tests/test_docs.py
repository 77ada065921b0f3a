"""The pages say what the code has: every method, every option with its default, no link into the void."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fewseg.util.config.published import SPELLINGS
from fewseg.util.config.schema import SECTIONS
from tools.write_tables import DOCS, OPTIONS, described, with_key_tables, with_option_tables

ROOT = Path(__file__).resolve().parents[1]
METHODS_PAGE = ROOT / "docs" / "methods.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIG_PAGE = DOCS / "config.md"


def section(name: str) -> str:
    """Return the text under the heading of docs/methods.md that names the method in backticks."""
    parts = re.split(r"^## (.+)$", METHODS_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [text for title, text in zip(parts[1::2], parts[2::2], strict=True) if f"(`{name}`)" in title]
    assert len(found) == 1, f"docs/methods.md needs one section '## ... (`{name}`)', has {len(found)}"
    return found[0]


def links(page: Path) -> list[str]:
    """Return the relative targets of a page's links and pictures, code left out."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_stands_in_its_method_s_section_as_its_docstring_says(name: str) -> None:
    assert set(described(OPTIONS[name])) == {field.name for field in fields(OPTIONS[name])}
    assert all(f"| `{field.name}` |" in section(name) for field in fields(OPTIONS[name]))
    page = METHODS_PAGE.read_text(encoding="utf-8")
    assert page == with_option_tables(page), "run python tools/write_tables.py"


def test_page_of_methods_is_found_out_where_a_table_differs() -> None:
    page = METHODS_PAGE.read_text(encoding="utf-8")
    assert with_option_tables(page.replace("| `scale` | 20.0 |", "| `scale` | 21.0 |")) == page


def test_config_page_describes_every_key_as_the_schema_does() -> None:
    page = CONFIG_PAGE.read_text(encoding="utf-8")
    undescribed = [
        f"{name}.{key}"
        for name, schema in SECTIONS.items()
        for key, field in schema.model_fields.items()
        if not field.description
    ]
    assert not undescribed, "write a docstring below the key in util/config/schema.py"
    assert page == with_key_tables(page), "run python tools/write_tables.py"
    assert [key for key in SPELLINGS if f"`{key}" not in page] == []


def test_config_page_is_found_out_where_a_table_differs() -> None:
    page = CONFIG_PAGE.read_text(encoding="utf-8")
    assert with_key_tables(page.replace("| `shot` | 1 |", "| `shot` | 2 |")) == page
    assert with_key_tables(page.replace("| `train_gpu` |", "| `train_gpus` |")) == page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_point_to_files(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert not missing, f"{page.relative_to(ROOT)} links to what is not there: {', '.join(missing)}"


def test_configs_of_the_methods_page_exist() -> None:
    patterns = re.findall(r"`(config/[\w*/]+\.yaml)`", METHODS_PAGE.read_text(encoding="utf-8"))
    assert patterns
    assert [pattern for pattern in patterns if not list(ROOT.glob(pattern))] == []
