"""The keys in which the config of a run differs from another one, as a name and a short key.

``base_lr0.1-width32_5d7c0a3e``: first a readable part, then eight hex digits that are different for other
settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import PurePath
from typing import Any

from fewseg.util.config.load import Config
from fewseg.util.config.schema import FREE_MAPPINGS, keys_marked
from fewseg.util.config.types import Effect

_READABLE = 60
"""The most characters of the readable part; differences that do not fit are counted."""

_ORDER = {"Train": 1, "Method": 2, "Data": 3}
"""The order of sections in names: first those that are changed most; ``Test_Finetune`` comes before them."""

_REMOVED_KEYS = {"pspnet": {"Method.zoom_factor": 8}}
"""Method -> keys that its shipped configs had once. Short keys still count them, so names stay the same."""

TRAINING = (Effect.TRAINING, Effect.BOTH)
TEST = (Effect.BOTH, Effect.TEST)
"""The effects of the keys in which two trainings, or two tests of one checkpoint, differ."""


def differences(ours: Config, theirs: Config, effects: Collection[Effect]) -> dict[str, Any]:
    """Return the keys with one of these effects in which two configs differ: key path -> value in ``ours``.

    Of a path only the last two parts are compared, so that a run has the same name on two machines.
    """
    our_values, their_values = values(ours, effects), values(theirs, effects)
    return {
        key_path: our_values.get(key_path)
        for key_path in our_values | their_values
        if our_values.get(key_path) != their_values.get(key_path)
    }


def short_key(config: Config, defaults: Config, effects: Collection[Effect]) -> str:
    """Return eight hex digits of all keys that have one of these effects.

    Data set, method and backbone count too; fold, shot and data root do not. Keys with the schema's default
    are left out, so that a key that is added to the schema changes no name.

    Args:
        config: the config of the run.
        defaults: a config of the schema's defaults.
        effects: ``TRAINING`` or ``TEST``.
    """
    sections = config.as_dict()
    content = {
        "network": [sections["Data"]["data_set"], sections["Method"]["arch"], sections["Method"]["backbone"]],
        **differences(config, defaults, effects),
        **(_REMOVED_KEYS.get(sections["Method"]["arch"], {}) if Effect.TRAINING in effects else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def readable(different: dict[str, Any]) -> str:
    """Return differences as a part of a file name: ``base_lr0.1-optimizer_adam``."""
    by_section = sorted(different.items(), key=lambda item: _ORDER.get(item[0].partition(".")[0], 0))
    terms = [_term(key_path.rpartition(".")[2], value) for key_path, value in by_section]
    shown: list[str] = []
    for term in terms:
        if shown and len("-".join([*shown, term])) > _READABLE:
            break
        shown.append(term[:_READABLE])
    hidden = len(terms) - len(shown)
    return "-".join([*shown, *([f"and{hidden}more"] if hidden else [])])


def in_file_name(text: str) -> str:
    """Return ``text`` without characters that are awkward in the name of a file."""
    return re.sub(r"[^\w.+-]+", "", text, flags=re.ASCII).strip(".")


def _term(key: str, value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    texts = [PurePath(part).stem if isinstance(part, str) and "/" in part else str(part) for part in values]
    text = in_file_name("x".join(texts))
    return f"{key}{text}" if text[:1].isdigit() or text[:1] == "-" else f"{key}_{text}"


def values(config: Config, effects: Collection[Effect]) -> dict[str, Any]:
    """Return the keys with one of these effects as plain values, of a path the last two parts.

    Every option is a key: ``Method.options.channels``.
    """
    marked = keys_marked(*effects)
    return {
        key_path: _comparable(value)
        for section, keys in config.as_dict().items()
        for key, whole in keys.items()
        if f"{section}.{key}" in marked
        for key_path, value in _flat(f"{section}.{key}", whole)
    }


def _flat(key_path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a key and its value, or every entry of a free mapping."""
    if key_path not in FREE_MAPPINGS:
        yield key_path, value
        return
    for option, inner in value.items():
        yield f"{key_path}.{option}", inner


def _comparable(value: Any) -> Any:
    if isinstance(value, list):
        return [_comparable(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and "/" in value:
        return "/".join(PurePath(os.path.normpath(value)).parts[-2:])
    return value
