"""Reading a YAML config file and its ``_base_`` files with the line of every key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fewseg.util.config.plain_yaml import pairs, parse, plain
from fewseg.util.errors import ConfigError, shortened
from fewseg.util.files import is_path

BASE_KEY = "_base_"


@dataclass(frozen=True)
class Entry:
    """One key of a file, or of ``--opts``.

    Attributes:
        section: the section that it was written in; empty for ``--opts`` without one.
        key: the name of the key.
        value: a plain Python object; the values of a mapping are entries themselves.
        source: the place, for messages: ``file.yaml:12``.
    """

    section: str
    key: str
    value: Any
    source: str


@dataclass(frozen=True)
class ConfigFile:
    """One parsed file: its ``_base_`` files, and its own entries in the order of the text."""

    bases: tuple[Path, ...]
    entries: tuple[Entry, ...]


def read_config_files(path: str | Path) -> list[ConfigFile]:
    """Read ``path`` and all its ``_base_`` files, the deepest one first.

    Raises:
        ConfigError: a file is missing, the files form a cycle, or a text is no mapping of sections.
    """
    if not is_path(str(path)):
        raise ConfigError(f"--config: {shortened(str(path))} is no path; correct it")
    return list(_with_bases(Path(path), (), "--config"))


def parse_value(text: str, source: str) -> Any:
    """Parse one ``--opts`` value as YAML: a number, True, text, or a list of such in brackets."""
    try:
        node = parse(text)
    except yaml.YAMLError as failure:
        raise ConfigError(f"{source}: {shortened(text)} is no YAML value; put it in quotes") from failure
    return None if node is None else plain(node, source)


def _with_bases(path: Path, chain: tuple[Path, ...], source: str) -> Iterable[ConfigFile]:
    resolved = path.resolve()
    if resolved in chain:
        names = " -> ".join(p.name for p in (*chain[chain.index(resolved) :], resolved))
        raise ConfigError(f"{source}: {BASE_KEY} runs in a circle ({names}); remove one of these links")
    file = _parse(path, _read_text(path, source))
    for base in file.bases:
        yield from _with_bases(base, (*chain, resolved), f"{_shown(path)}: {BASE_KEY}")
    yield file


@lru_cache(maxsize=256)  # the configs of a study share their base files
def _parse(path: Path, text: str) -> ConfigFile:
    shown = _shown(path)
    try:
        root = parse(text)
    except yaml.YAMLError as failure:
        mark, problem = getattr(failure, "problem_mark", None), getattr(failure, "problem", None)
        line = mark.line + 1 if mark else 1
        raise ConfigError(
            f"{shown}:{line}: no valid YAML ({problem or 'control characters'}); correct this line"
        ) from failure
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{shown}:1: must be a mapping of sections (Data, Train, Method, Test_Finetune)")
    bases: tuple[Path, ...] = ()
    entries: list[Entry] = []
    for name, node, where in pairs(root, shown):
        if name == BASE_KEY:
            bases = _bases(plain(node, where), path, where)
        elif isinstance(node, yaml.MappingNode):
            entries.extend(
                Entry(name, key, _value(child, line), line)
                for key, child, line in pairs(node, shown, f"{name}.")
            )
        elif node.value:  # an empty section says nothing
            raise ConfigError(
                f"{where}: {name}: must be a section, a mapping of keys; indent its keys below it"
            )
    return ConfigFile(bases, tuple(entries))


def _read_text(path: Path, source: str) -> str:
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as failure:
        raise ConfigError(f"{_shown(path)}: no text in UTF-8; save it as plain text") from failure
    except OSError as failure:
        raise ConfigError(f"{source}: {_shown(path)}: cannot be read ({failure.strerror})") from failure
    raise ConfigError(f"{source}: no such config file: {_shown(path)}; check the path")


def _value(node: yaml.Node, source: str) -> Any:
    """Return a node as plain Python; a mapping becomes a dict of entries, which hold their lines."""
    if isinstance(node, yaml.MappingNode):
        shown = source.rpartition(":")[0]
        return {key: Entry("", key, plain(child, line), line) for key, child, line in pairs(node, shown)}
    return plain(node, source)


def _bases(value: Any, path: Path, source: str) -> tuple[Path, ...]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and is_path(name) for name in names):
        raise ConfigError(
            f"{source}: {BASE_KEY}: must be a file name or a list of them, relative to this file"
        )
    return tuple(path.parent / name for name in names)


def _shown(path: Path) -> str:
    """Return ``path`` with every ``../`` resolved; a relative path stays relative."""
    return os.path.normpath(path)
