"""The YAML of config files: decimal numbers, text, lists and mappings, within bounds.

YAML 1.1 reads ``12:30:45`` as 45045, ``0x1F`` as 31, ``010`` as 8 and ``2020-01-01`` as a date, but ``1e-4``
as text. Nobody means that in a config, so here numbers are decimal and everything else is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml

from fewseg.util.errors import ConfigError, shortened

_MOST_CHARACTERS = 1 << 20
_MOST_VALUES = 10_000
_DEEPEST = 10
_LONGEST_NUMBER = 40

_TAG = "tag:yaml.org,2002:"
_KEPT = {f"{_TAG}{kind}" for kind in ("null", "bool")}
_NUMBERS = {
    "int": r"[-+]?(0|[1-9]\d*)",
    "float": r"[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
}
_WORD = re.compile(r"[\w.<>{}-]{0,100}")


class _Loader(yaml.SafeLoader):
    """Builds nodes, which ``plain`` turns into values."""


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that these rules, or those of YAML 1.1, would read as something else."""


_Loader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] in _KEPT]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern in _NUMBERS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(f"(?:{_pattern})$"), list("-+.0123456789"))


@lru_cache(maxsize=256)  # a study reads the same few files for every one of its runs
def parse(text: str) -> yaml.Node | None:
    """Return the root node of a YAML text; None for an empty one. The node must not be changed.

    Raises:
        yaml.YAMLError: it is no YAML, too long, or nested too deep.
    """
    if len(text) > _MOST_CHARACTERS:
        raise yaml.MarkedYAMLError(problem=f"longer than {_MOST_CHARACTERS} characters")
    try:
        return _Loader(text).get_single_node()
    except RecursionError:
        raise yaml.MarkedYAMLError(problem="nested too deep") from None


def dump(values: Any) -> str:
    """Return plain values as YAML that is read back as the same."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def as_text(value: Any) -> str:
    """Return a plain value as one line of YAML, as it is written behind ``--opts``."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=math.inf,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def plain(node: yaml.Node, source: str) -> Any:
    """Return a value as plain Python: None, a bool, a number, text, a list or a dict.

    Args:
        node: the node of the value.
        source: its place, for messages: ``file.yaml:12``.

    Raises:
        ConfigError: a malformed number, a type that no key takes, or too many values (aliases of
            lists of aliases make millions of them out of one line).
    """
    return _plain(node, source, iter(range(_MOST_VALUES)), 0)


def pairs(mapping: yaml.MappingNode, shown: str, prefix: str = "") -> Iterator[tuple[str, yaml.Node, str]]:
    """Yield key, value node and place of every pair of a mapping.

    Args:
        mapping: a section, or a mapping in one.
        shown: the file, for messages.
        prefix: the text before a key in messages.

    Raises:
        ConfigError: a key that is no plain word, or that is given twice.
    """
    seen: dict[str, int] = {}
    for key_node, value_node in mapping.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{shown}:{line}: a key must be a plain word")
        key = require_word(key_node.value, f"{shown}:{line}")
        if key in seen:
            raise ConfigError(
                f"{shown}:{line}: {prefix}{key}: duplicate key, first given in line {seen[key]}; keep one"
            )
        seen[key] = line
        yield key, value_node, f"{shown}:{line}"


def require_word(key: str, source: str) -> str:
    """Return the name of a key or a section; raise ConfigError if it holds blanks or unusual characters."""
    if not _WORD.fullmatch(key):
        raise ConfigError(f"{source}: a key must be a plain word, got {shortened(key)}")
    return key


def _plain(node: yaml.Node, source: str, budget: Iterator[int], depth: int) -> Any:
    if next(budget, None) is None:
        raise ConfigError(f"{source}: more than {_MOST_VALUES} values; write fewer, without aliases (*)")
    if depth > _DEEPEST:
        raise ConfigError(f"{source}: nested more than {_DEEPEST} deep; write plain values or flat lists")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, source)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return [_plain(child, source, budget, depth + 1) for child in node.value]
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        inner = pairs(node, source.rpartition(":")[0] or source)
        return {key: _plain(child, source, budget, depth + 1) for key, child, _ in inner}
    raise _unknown_type(node, source)


def _scalar(node: yaml.ScalarNode, source: str) -> Any:
    kind, text = node.tag.removeprefix(_TAG), node.value
    if kind == "null":
        return None
    if kind == "str":
        return text
    if kind == "bool" and text.lower() in yaml.SafeLoader.bool_values:
        return yaml.SafeLoader.bool_values[text.lower()]
    if kind in _NUMBERS and re.fullmatch(_NUMBERS[kind], text) and len(text) <= _LONGEST_NUMBER:
        return int(text) if kind == "int" else _float(text)
    if kind in (*_NUMBERS, "bool"):
        raise ConfigError(f"{source}: {shortened(text)} is no number or switch; correct it")
    raise _unknown_type(node, source)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _unknown_type(node: yaml.Node, source: str) -> ConfigError:
    kind = node.tag.replace(_TAG, "!!")
    return ConfigError(
        f"{source}: values of type {shortened(kind)} are not understood; write numbers, text or lists"
    )
