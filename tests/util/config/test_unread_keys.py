"""Every key of the schema is read by some code; a key that nothing reads is found."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from fewseg.model.create import METHODS
from fewseg.util.config.schema import SECTIONS, keys_marked
from fewseg.util.config.types import METHOD_OPTION

ROOT = Path(__file__).resolve().parents[3]
FILES = [
    *ROOT.glob("*.py"),
    *(path for top in ("engine", "tools", "util") for path in (ROOT / top).rglob("*.py")),
]


def reads(tree: ast.Module, sections: Mapping[str, str]) -> Iterator[str]:
    """Yield the key paths that a module reads.

    ``config.Data.split`` is read, and ``data.split`` where ``data`` is set to ``config.Data`` or annotated by
    the class of that section. ``getattr`` of a section reads every key whose name is a text in the module.

    Args:
        tree: of the module.
        sections: name or class name of a section -> its name.
    """
    aliases: dict[str, set[str]] = {}

    def sections_of(node: ast.expr) -> Collection[str]:
        own = {sections[node.attr]} if isinstance(node, ast.Attribute) and node.attr in sections else set()
        return own | aliases.get(ast.unparse(node), set())

    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation and ast.unparse(node.annotation) in sections:
            aliases.setdefault(node.arg, set()).add(sections[ast.unparse(node.annotation)])
    for node in ast.walk(tree):
        for target, value in pairs(node):
            aliases.setdefault(ast.unparse(target), set()).update(sections_of(value))
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = {value for value in constants if isinstance(value, str)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield from (f"{section}.{node.attr}" for section in sections_of(node.value))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            yield from (f"{section}.{text}" for section in sections_of(node.args[0]) for text in texts)


def pairs(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield target and value of an assignment, also of ``data, train = config.Data, config.Train``."""
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield target, node.value


def unread(keys: Collection[str], sources: Collection[str]) -> set[str]:
    """Return the key paths that none of these source texts reads."""
    sections = {name: name for name in SECTIONS} | {model.__name__: name for name, model in SECTIONS.items()}
    return set(keys) - {key for source in sources for key in reads(ast.parse(source), sections)}


def test_every_key_is_read() -> None:
    keys = {f"{name}.{key}" for name, section in SECTIONS.items() for key in section.model_fields}
    options = {field.name for method in METHODS.values() for field in fields(method.Options)}
    handed_on = {path for path in keys_marked(METHOD_OPTION) if path.partition(".")[2] in options}
    sources = [path.read_text(encoding="utf-8") for path in FILES]
    assert unread(keys - handed_on, sources) == set(), (
        "remove the key, or list it in util/config/published.py"
    )


def test_a_key_that_nothing_reads_is_found() -> None:
    keys = {"Data.used", "Data.renamed", "Data.by_name", "Train.handed_on", "Data.dead", "Train.dead"}
    source = """
def load(config, network):
    data, other = config.Data, network
    print(config.Data.used, data.renamed, other.dead, getattr(config.Data, NAMES[0]))

class Loop:
    def __init__(self, network, settings: Train):
        self.network, self.settings = network, settings

    def run(self):
        return self.settings.handed_on + self.network.dead

NAMES = ("by_name",)
"""
    assert unread(keys, [source]) == {"Data.dead", "Train.dead"}
