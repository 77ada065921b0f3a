"""Config files: YAML with inheritance, command-line overrides, types and readable errors.

``load_config("config/pascal/bam_resnet50.yaml", ["split", "1"])`` gives a read-only ``Config`` with the
sections ``Data``, ``Train``, ``Method`` and ``Test_Finetune``. Every error is one line that names the file,
the line, the key, what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from fewseg.util.config import schema
from fewseg.util.config.file import Entry, parse_value, read_config_files
from fewseg.util.config.nearest_key import nearest
from fewseg.util.config.plain_yaml import dump, require_word
from fewseg.util.config.published import (
    SECTION_ALIASES,
    SPELLINGS,
    UNUSED,
    guess_arch,
    is_default,
    translate,
    without_effect,
)
from fewseg.util.config.schema import FREE_MAPPINGS, SECTIONS, contradictions
from fewseg.util.errors import ConfigError, shortened

_SECTIONS_WITH: dict[str, list[str]] = {}
"""Key -> the sections that have it."""
for _name, _model in SECTIONS.items():
    for _key in _model.model_fields:
        _SECTIONS_WITH.setdefault(_key, []).append(_name)
_NO_HINT = "a method's own switches go under Method.options; docs/config.md lists the keys"
_FREE_BY_LOWER_CASE = {key_path.lower(): key_path for key_path in FREE_MAPPINGS}
_BY_LOWER_CASE = {name.lower(): name for name in SECTIONS} | SECTION_ALIASES


class Config(BaseModel):
    """The settings of one run; they cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    Data: schema.Data
    Train: schema.Train
    Method: schema.Method
    Test_Finetune: schema.TestFinetune
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _file: Path | None = PrivateAttr(None)
    _notices: tuple[str, ...] = PrivateAttr(())

    @property
    def file(self) -> Path | None:
        """The YAML file that the config was read from."""
        return self._file

    @property
    def notices(self) -> tuple[str, ...]:
        """A line for every key that was given and has no effect: its place, and the reason."""
        return self._notices

    def where(self, key: str) -> str:
        """Return the source of "Train.base_lr": ``file.yaml:12``, ``--opts base_lr`` or ``default``."""
        return self._sources.get(key, "default")

    def with_values(self, **sections: Mapping[str, Any]) -> Config:
        """Return a copy in which some keys have other values, which are not checked: ``Data={"shot": 5}``."""
        changed = {name: getattr(self, name).model_copy(update=values) for name, values in sections.items()}
        return self.model_copy(update=changed)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Return the sections as plain values, fit for JSON."""
        return self.model_dump(mode="json")

    def dump_yaml(self) -> str:
        """Return the whole config as YAML that ``load_config`` reads back."""
        return dump(self.as_dict())


def load_config(path: str | Path, opts: Sequence[str] = ()) -> Config:
    """Read a config file, apply overrides and check everything.

    Args:
        path: a YAML file; its ``_base_`` files are relative to it.
        opts: pairs of key and value, the key by itself ("split") or with its section ("Data.split").

    Raises:
        ConfigError: one line with file, line, key path, what is wrong and what to do.
    """
    groups = translate([*(file.entries for file in read_config_files(path)), _overrides(opts)])
    settings: dict[str, Entry] = {}
    for group in groups:
        settings |= _by_key_path(group)
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for key_path, entry in settings.items():
        section, key, *option = key_path.split(".", 2)
        if is_default(key_path, entry.value):
            continue
        if option:
            values[section].setdefault(key, {})[option[0]] = entry.value
        else:
            values[section][key] = entry.value
    if not values["Method"].get("arch"):
        given = (entry for group in groups for entry in group if entry.key == "classes")
        classes = [entry.value for entry in given if entry.value is not None]
        values["Method"]["arch"] = guess_arch(values, classes[-1] if classes else None)
    config = _validated(values, {key_path: entry.source for key_path, entry in settings.items()}, str(path))
    config._file = Path(path)
    config._notices = tuple(
        f"{entry.source}: {entry.key} has no effect: {UNUSED[entry.key]}" for entry in without_effect(groups)
    )
    return config


def _overrides(opts: Sequence[str]) -> list[Entry]:
    if len(opts) % 2:
        raise ConfigError(f"--opts: {opts[-1]!r} has no value; give pairs: --opts split 1 shot 5")
    entries = []
    for name, text in zip(opts[::2], opts[1::2], strict=True):
        source = f"--opts {require_word(name, '--opts')}"
        section, _, key = name.rpartition(".")
        value: Any = parse_value(text, source)
        if section.lower() in _FREE_BY_LOWER_CASE:
            value = {key: value}
        if isinstance(value, dict):
            value = {option: Entry("", option, inner, source) for option, inner in value.items()}
        if section.lower() in _FREE_BY_LOWER_CASE:
            section, key = _FREE_BY_LOWER_CASE[section.lower()].split(".")
        entries.append(Entry(section, key, value, source))
    return entries


def _by_key_path(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Return the entries of one file, or of the command line, that have an effect: key path -> entry."""
    placed: dict[str, Entry] = {}
    for entry in entries:
        section = _section_of_key(entry)
        if section is None:
            continue
        key_path = f"{section}.{entry.key}"
        own = {key_path: entry}
        if key_path in FREE_MAPPINGS and isinstance(entry.value, dict | None):
            own = {f"{key_path}.{option}": inner for option, inner in (entry.value or {}).items()}
        for name in own.keys() & placed:
            raise ConfigError(
                f"{own[name].source}: {name}: duplicate key, first given at {placed[name].source}; keep one"
            )
        placed |= own
    return placed


def _section_of_key(entry: Entry) -> str | None:
    """Return the section that a key belongs to, wherever it was written; None where it has no effect."""
    written_in = _known_section(entry) if entry.section else ""
    if entry.key in UNUSED:
        return None
    sections = _SECTIONS_WITH.get(entry.key, [])
    if written_in in sections:
        return written_in
    if len(sections) == 1:
        return sections[0]
    name = f"{written_in}.{entry.key}" if written_in else entry.key
    if sections:
        choices = " or ".join(f"{section}.{entry.key}" for section in sections)
        raise ConfigError(f"{entry.source}: {name}: ambiguous; say {choices}")
    near = nearest(entry.key, [*_SECTIONS_WITH, *UNUSED, *SPELLINGS])
    hint = f"did you mean {near}?" if near else _NO_HINT
    raise ConfigError(f"{entry.source}: {name}: unknown key; {hint}")


def _known_section(entry: Entry) -> str:
    """Return the name of the section that an entry was written in, in the spelling of the schema."""
    section = _BY_LOWER_CASE.get(entry.section.lower())
    if section is None:
        near = nearest(entry.section, SECTIONS)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(SECTIONS)}"
        raise ConfigError(f"{entry.source}: {entry.section}: unknown section; {hint}")
    return section


def _validated(values: dict[str, dict[str, Any]], sources: dict[str, str], path: str) -> Config:
    try:
        config = Config(**values)
    except ValidationError as failure:
        error = failure.errors()[0]
        key_path = ".".join(str(part) for part in error["loc"][:2])
        raise ConfigError(f"{sources.get(key_path, path)}: {key_path}: {_message(error)}") from failure
    for key_path, wrong in contradictions(config.Data, config.Train, config.Test_Finetune):
        raise ConfigError(f"{sources.get(key_path, path)}: {key_path}: {wrong}")
    config._sources.update(sources)
    return config


def _message(error: Any) -> str:
    """Return pydantic's first error in plain words."""
    limits = error.get("ctx", {})
    kind = error["type"]
    words = {
        "greater_than": "must be greater than {gt}",
        "greater_than_equal": "must be at least {ge}",
        "less_than": "must be less than {lt}",
        "less_than_equal": "must be at most {le}",
        "literal_error": "must be one of {expected}",
        "finite_number": "must be a finite number",
        "too_long": "must have at most {max_length} values",
        "too_short": "must have at least {min_length} values",
        "string_pattern_mismatch": "must be a plain name",
        "string_too_long": "must have at most {max_length} characters",
        "missing": "must have more values",
    }
    by_family = {
        "int": "must be a whole number",
        "float": "must be a number",
        "bool": "must be True or False",
        "string": "must be text",
        "tuple": "must be a list in brackets",
        "dict": "must be a mapping",
        "value": "{error}",
    }
    text = words.get(kind) or by_family.get(kind.split("_")[0], error["msg"])
    value = error["input"]
    shown = "nothing" if value is None else "a mapping" if isinstance(value, dict) else shortened(value)
    return f"{text.format(**limits)}, got {shown}"
