"""Reading a YAML config file with its ``_base_`` files, remembering the line of every key."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from util.errors import ConfigError

BASE_KEY = "_base_"


@dataclass(frozen=True)
class Entry:
    """One key of a file, or of ``--opts``.

    Attributes:
        section: the section it was written in; empty for ``--opts`` without one.
        key: its name.
        value: its value, a plain Python object; a mapping's values are entries.
        source: where it stands, for messages: ``file.yaml:12``.
    """

    section: str
    key: str
    value: Any
    source: str


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that ``1e-4`` is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class ConfigFile:
    """One parsed file: the files that it builds on, and its own entries in the order of the text."""

    bases: tuple[Path, ...]
    entries: tuple[Entry, ...]


def read_config_files(path: str | Path) -> list[ConfigFile]:
    """Read ``path`` and all that it builds on, the deepest base first.

    Raises:
        ConfigError: a missing file, a cycle, or text that is no mapping of sections.
    """
    return list(_with_bases(Path(path), (), "--config"))


def parse_value(text: str, source: str) -> Any:
    """Parse one ``--opts`` value as YAML: a number, True, text, or a list of such in brackets."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, source)
    except (yaml.YAMLError, ValueError) as failure:
        raise ConfigError(f"{source}: {text!r} is no YAML value; put it in quotes") from failure
    finally:
        loader.dispose()


def _with_bases(path: Path, chain: tuple[Path, ...], source: str) -> Iterable[ConfigFile]:
    resolved = path.resolve()
    if resolved in chain:
        names = " -> ".join(p.name for p in (*chain[chain.index(resolved) :], resolved))
        raise ConfigError(f"{source}: {BASE_KEY} runs in a circle ({names}); remove one of these links")
    file = _parse(path, source)
    for base in file.bases:
        yield from _with_bases(base, (*chain, resolved), f"{_shown(path)}: {BASE_KEY}")
    yield file


def _parse(path: Path, source: str) -> ConfigFile:
    shown = _shown(path)
    if not path.is_file():
        raise ConfigError(f"{source}: no such config file: {shown}; check the path")
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(
                f"{shown}:1: must be a mapping of sections (Data, Train, Method, Test_Finetune)"
            )
        bases: tuple[Path, ...] = ()
        entries: list[Entry] = []
        for name, node, where in _pairs(root, shown):
            if name == BASE_KEY:
                bases = _bases(loader.construct_object(node, deep=True), path, where)
            elif isinstance(node, yaml.MappingNode):
                entries.extend(
                    Entry(name, key, _value(loader, child, line), line)
                    for key, child, line in _pairs(node, shown, f"{name}.")
                )
            elif node.value:  # an empty section says nothing
                raise ConfigError(
                    f"{where}: {name}: must be a section, a mapping of keys; indent its keys below it"
                )
        return ConfigFile(bases, tuple(entries))
    except yaml.MarkedYAMLError as failure:
        line = failure.problem_mark.line + 1 if failure.problem_mark else 1
        raise ConfigError(
            f"{shown}:{line}: no valid YAML ({failure.problem}); correct this line"
        ) from failure
    except (yaml.YAMLError, UnicodeDecodeError) as failure:
        raise ConfigError(f"{shown}: no text in UTF-8; save it as plain text") from failure


def _pairs(mapping: yaml.MappingNode, shown: str, prefix: str = "") -> Iterable[tuple[str, yaml.Node, str]]:
    """Yield key, value node and place of every pair of a mapping, refusing a key that comes twice."""
    seen: dict[str, int] = {}
    for key_node, value_node in mapping.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{shown}:{line}: a key must be a plain word")
        key = key_node.value
        if key in seen:
            raise ConfigError(
                f"{shown}:{line}: {prefix}{key}: duplicate key, first given in line {seen[key]}; keep one"
            )
        seen[key] = line
        yield key, value_node, f"{shown}:{line}"


def _value(loader: _Loader, node: yaml.Node, source: str) -> Any:
    """Turn a node into plain Python; a mapping becomes a dict of entries."""
    if isinstance(node, yaml.MappingNode):
        shown = source.rpartition(":")[0] or source
        return {
            key: Entry("", key, _plain(loader, child, line), line) for key, child, line in _pairs(node, shown)
        }
    return _plain(loader, node, source)


def _plain(loader: _Loader, node: yaml.Node, source: str) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as failure:  # for example a date that does not exist
        raise ConfigError(f"{source}: {failure}; put the value in quotes") from failure


def _bases(value: Any, path: Path, source: str) -> tuple[Path, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(
            f"{source}: {BASE_KEY}: must be a file name or a list of them, relative to this file"
        )
    return tuple(path.parent / name for name in names)


def _shown(path: Path) -> str:
    """Return ``path`` without the detours of ``../``, relative where it was given so."""
    return os.path.normpath(path)
