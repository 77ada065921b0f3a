"""The names of a result's file and table, and whether two results are of the same measurement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

from fewseg.util.config.differences import readable
from fewseg.util.config.file import Entry
from fewseg.util.config.published import ADAPT_OPTIONS, UNUSED, is_default, translate
from fewseg.util.config.schema import default_of, keys_marked
from fewseg.util.config.types import Effect
from fewseg.util.results.result import Result

_IDENTITY = (
    *("method", "backbone", "data_set", "fold", "shot", "ways", "protocol", "protocol_difference"),
    *("trained_under", "training_difference", "novel_in_train", "absent_classes"),
    *("setting", "annotation", "oracle", "episodes", "checkpoint_hash"),
)
"""Entries in which, besides seeds, episodes and settings, two measurements may differ."""

_NOT_COMPARED = keys_marked(Effect.NOTHING) | {
    *("Method.pretrained", "Method.base_weight", "Test_Finetune.weight"),
    *("Test_Finetune.episodes", "Test_Finetune.seeds", "Test_Finetune.episodes_file"),
}
"""Keys that change no figure, and those whose effect the hashes of weights and episodes show."""

_COUNTS = ("episodes", "seeds")
"""Points of a protocol that have a part of their own in names."""

_SEEDS_NAMED, _VARIANT = 5, 40
"""The most seeds, and the longest variant, written out in a name; a short key replaces longer ones."""


def same_measurement(one: Result, other: Result) -> bool:
    """Return whether both are of one checkpoint, tested with the same settings on the same episodes."""
    return _identity(one) == _identity(other)


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
        *(f"fold{result.fold}", f"{result.shot}shot", *([f"{result.ways}way"] if result.ways > 1 else [])),
        *_kind(result, result.setting),
        *([variant if len(variant) <= _VARIANT else _key(variant)] if variant else []),
    ]
    return _joined(parts) + ".json"


def table_name(result: Result) -> str:
    """Return a name for the table of the results that were tested like this one."""
    family = "generalised" if result.setting.startswith("generalised") else result.setting
    changes = departures_in_words(result)
    return _joined(
        [result.data_set, result.protocol, *_kind(result, family), *([changes] if changes else [])]
    )


def departures(result: Result) -> dict[str, Any]:
    """Return what was changed in the protocol of the test, besides the numbers of episodes and seeds."""
    points = {key: own for key, (_, own) in result.protocol_difference.items() if key not in _COUNTS}
    return points | ({"oracle": True} if result.oracle else {})


def departures_in_words(result: Result) -> str:
    """Return ``departures`` as a part of a file name, ``min_area512``; empty where there are none."""
    return readable({f"Data.protocol_options.{key}": value for key, value in departures(result).items()})


def _identity(result: Result) -> tuple[object, ...]:
    settings = {
        f"{section}.{key}": value
        for section, key, value in _settings(result)
        # The checkpoint's hash covers the training, except for the seed of an untrained network.
        if (key == "manual_seed" if section == "Train" else f"{section}.{key}" not in _NOT_COMPARED)
        # A key that was added to the schema since has its default in older results.
        and value != default_of(f"{section}.{key}")
    }
    episodes = [(seed.seed, seed.episode_hash) for seed in result.seeds]
    return *(getattr(result, name) for name in _IDENTITY), episodes, settings


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


def _kind(result: Result, setting: str) -> list[str]:
    seeds = "-".join(str(seed.seed) for seed in result.seeds)
    named = seeds if len(result.seeds) <= _SEEDS_NAMED else _key(seeds)
    return [
        *([setting] if setting != "few-shot" else []),
        *([result.annotation] if result.annotation != "mask" else []),
        f"{len(result.seeds)}x{result.episodes}",
        *([f"seeds{named}"] if "seeds" in result.protocol_difference else []),
    ]


def _key(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _joined(parts: Iterable[str]) -> str:
    return "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)
