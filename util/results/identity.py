"""The names of a result's file and table, and whether two results are of the same measurement."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from fewseg.util.checkpoint import file_hash
from fewseg.util.config.differences import readable
from fewseg.util.config.file import Entry
from fewseg.util.config.published import ADAPT_OPTIONS, UNUSED, is_default, translate
from fewseg.util.config.schema import default_of, keys_marked
from fewseg.util.config.types import Effect
from fewseg.util.results.result import Result

_IDENTITY = (
    *("method", "backbone", "data_set", "fold", "shot", "ways", "protocol", "protocol_difference"),
    *("trained_on", "trained_under", "training_difference", "novel_in_train", "absent_classes"),
    *("setting", "annotation", "oracle", "episodes", "checkpoint_hash"),
)
"""Entries in which, besides seeds, episodes and settings, two measurements may differ."""

_EPISODES_FILE = "Test_Finetune.episodes_file"
_NOT_COMPARED = keys_marked(Effect.NOTHING) | {
    *("Method.pretrained", "Method.base_weight", "Test_Finetune.weight"),
    *("Test_Finetune.episodes", "Test_Finetune.seeds", _EPISODES_FILE),
}
"""Keys that change no figure, and those whose effect the hashes of weights and episodes show."""

_COUNTS = ("episodes", "seeds")
"""Points of a protocol that have a part of their own in names."""

_SEEDS_NAMED, _VARIANT = 5, 40
"""The most seeds, and the longest variant, written out in a name; a short key replaces the rest."""


def same_measurement(one: Result, other: Result) -> bool:
    """Return whether both are of one checkpoint, tested with the same settings on the same episodes."""
    return _identity(one) == _identity(other)


def told_apart(result: Result, namesakes: Iterable[Result]) -> Result:
    """Return a result whose variant tells it from the results of other runs that have its name.

    Args:
        result: a result that is to be written.
        namesakes: the results of the same name that have a right to it, see ``is_of_another_run``.
    """
    others = list(namesakes)
    if not others:
        return result
    same_weights = [other for other in others if other.checkpoint_hash == result.checkpoint_hash]
    if not same_weights:
        mark = f"weights_{(result.checkpoint_hash or '')[:8]}"
    elif all(other.episode_hash != result.episode_hash for other in same_weights):
        mark = f"episodes_{result.episode_hash[:8]}"
    else:
        mark = f"settings_{_key(repr(_asked_for(result, with_root=False)))}"
    return result.model_copy(update={"variant": "_".join(filter(None, [result.variant, mark]))})


def is_of_another_run(stored: Result, result: Result) -> bool:
    """Return whether a stored result is still one in its own right, and not replaced by a new one.

    It is where its weights differ and are still there as they were tested, or where it was asked for by other
    settings. Otherwise the run was trained anew, or its data were moved or have changed.
    """
    if stored.checkpoint_hash == result.checkpoint_hash:
        elsewhere = stored.episode_hash != result.episode_hash
        return _asked_for(stored, elsewhere) != _asked_for(result, elsewhere)
    path = Path(stored.checkpoint or "")
    return path.is_file() and file_hash(path) == stored.checkpoint_hash


def measurement_key(result: Result) -> str:
    """Return 16 hex digits that are equal for the same measurement with the same versions of the software."""
    content = json.dumps([_identity(result), result.versions], sort_keys=True, default=str)
    return sha256(content.encode()).hexdigest()[:16]


def file_name(result: Result) -> str:
    """Return a name that differs between runs: ``bam_resnet50_pascal_bam_fold0_1shot_5x1000.json``.

    Seeds are named where they are not the protocol's; the variant of the run comes last.
    """
    variant = result.variant or ""
    parts = [
        *(result.method, result.backbone, result.data_set, result.protocol),
        *_training(result),
        *(f"fold{result.fold}", f"{result.shot}shot", *([f"{result.ways}way"] if result.ways > 1 else [])),
        *_kind(result, result.setting),
        *([variant if len(variant) <= _VARIANT else _shortened(variant)] if variant else []),
    ]
    return _joined(parts) + ".json"


def table_name(result: Result) -> str:
    """Return a name for the table of the results that were tested like this one."""
    family = "generalised" if result.setting.startswith("generalised") else result.setting
    changes = departures_in_words(result)
    parts = [result.data_set, result.protocol, *_training(result), *_kind(result, family)]
    return _joined([*parts, *([changes] if changes else [])])


def departures(result: Result) -> dict[str, Any]:
    """Return what was changed in the protocol of the test, besides the numbers of episodes and seeds."""
    points = {key: own for key, (_, own) in result.protocol_difference.items() if key not in _COUNTS}
    return points | ({"oracle": True} if result.oracle else {})


def departures_in_words(result: Result) -> str:
    """Return ``departures`` as a part of a file name, ``min_area512``; empty where there are none."""
    return readable({f"Data.protocol_options.{key}": value for key, value in departures(result).items()})


def _identity(result: Result) -> tuple[object, ...]:
    episodes = [(seed.seed, seed.episode_hash) for seed in result.seeds]
    return *(getattr(result, name) for name in _IDENTITY), episodes, _compared(result, _NOT_COMPARED)


def _asked_for(result: Result, with_root: bool) -> tuple[object, ...]:
    """Return what a result was measured on, as far as its config says it."""
    names = (name for name in _IDENTITY if name != "checkpoint_hash")
    left_out = _NOT_COMPARED - {_EPISODES_FILE} | (set() if with_root else {"Data.data_root"})
    return *(getattr(result, name) for name in names), _compared(result, left_out)


def _compared(result: Result, left_out: Collection[str]) -> dict[str, Any]:
    """Return the settings of a measurement that are not ``left_out``: key path -> value."""
    return {
        f"{section}.{key}": value
        for section, key, value in _settings(result)
        # The checkpoint's hash covers the training, except for the seed of an untrained network.
        if (key == "manual_seed" if section == "Train" else f"{section}.{key}" not in left_out)
        # A key that was added to the schema since has its default in older results.
        and value != default_of(f"{section}.{key}")
    }


def _settings(result: Result) -> Iterator[tuple[str, str, Any]]:
    """Yield section, key and value of what a result was measured with, in the spelling of today's config.

    Results of earlier versions hold keys that had no effect, and state the defaults of the adaptation.
    """
    for section, values in result.config.items():
        for entry in translate([[Entry(section, key, value, "") for key, value in values.items()]])[0]:
            if f"{section}.{entry.key}" == ADAPT_OPTIONS:
                for option, value in entry.value.items():
                    plain = value.value if isinstance(value, Entry) else value
                    if not is_default(f"{ADAPT_OPTIONS}.{option}", plain):
                        yield section, f"{entry.key}.{option}", plain
            elif entry.key not in UNUSED:
                yield section, entry.key, entry.value


def _training(result: Result) -> list[str]:
    """Return the data of the training as a part of a name, where they are not those of the test."""
    return [f"trained-on-{result.trained_on}"] if result.trained_on else []


def _kind(result: Result, setting: str) -> list[str]:
    seeds = "-".join(str(seed.seed) for seed in result.seeds)
    named = seeds if len(result.seeds) <= _SEEDS_NAMED else _key(seeds)
    return [
        *([setting] if setting != "few-shot" else []),
        *([result.annotation] if result.annotation != "mask" else []),
        f"{len(result.seeds)}x{result.episodes}",
        *([f"seeds{named}"] if "seeds" in result.protocol_difference else []),
    ]


def _shortened(variant: str) -> str:
    """Return the first terms of a variant, ``base_lr0.1-width32_5d7c0a3e``, and a short key for all of it."""
    key = _key(variant)
    terms = variant[: _VARIANT - len(key)].replace("_", "-").rpartition("-")[0]
    return "_".join(filter(None, [variant[: len(terms)], key]))


def _key(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _joined(parts: Iterable[str]) -> str:
    return "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)
