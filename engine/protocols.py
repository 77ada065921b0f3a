"""The protocol that a config trains under, and the one that it tests under."""

from __future__ import annotations

from typing import Any

from dataset.protocol import TRAINING_POINTS, Protocol, load_protocol
from util.config import Config

Difference = dict[str, tuple[Any, Any]]
"""Point -> (as the preset has it, as it is)."""


def training_protocol(config: Config) -> Protocol:
    """Return ``Data.protocol`` with the points that the config changes."""
    data = config.Data
    points = _published_keys(config, "default") | _options(config)
    return load_protocol(data.protocol, data.data_set, **points)


def test_protocol(config: Config) -> Protocol:
    """Return the protocol that models are tested under: the one they were trained under, or another.

    What a file says about image sizes it says about its own protocol. Under ``test_protocol`` such keys count
    only where they are given beside it, on the command line.
    """
    trained, test = training_protocol(config), config.Test_Finetune
    protocol = trained
    if test.test_protocol is not None:
        points = _published_keys(config, "file") | _options(config)
        protocol = load_protocol(test.test_protocol, config.Data.data_set, **points).trained_under(trained)
    counts = {"episodes": test.episodes, "seeds": test.seeds}
    return protocol.with_overrides(**{key: value for key, value in counts.items() if value is not None})


test_protocol.__test__ = False  # its name is no invitation to pytest


def test_difference(config: Config, protocol: Protocol) -> Difference:
    """Return where testing departs from the preset of its name."""
    departures = protocol.difference(load_protocol(protocol.name, config.Data.data_set))
    return {point: pair for point, pair in departures.items() if point not in TRAINING_POINTS}


test_difference.__test__ = False


def training_difference(config: Config, protocol: Protocol) -> Difference:
    """Return where training departs from the preset of ``Data.protocol``."""
    departures = protocol.difference(load_protocol(config.Data.protocol, config.Data.data_set))
    return {point: pair for point, pair in departures.items() if point in TRAINING_POINTS}


def _options(config: Config) -> dict[str, Any]:
    return dict(config.Data.protocol_options)


def _published_keys(config: Config, weakest: str) -> dict[str, Any]:
    """Return the points that published keys set, where they are given more strongly than ``weakest``.

    A point of ``protocol_options`` goes before the published key for it.
    """
    data = config.Data
    points: dict[str, Any] = {"input_size": data.val_size}
    if data.data_set == "coco":
        points["interleaved_folds"] = data.use_split_coco
    if not data.resized_val:
        points["resize"] = "shrink"
    if not data.ori_resize:
        points["label_size"] = "input"
    if data.novel_in_train is not None:
        points["novel_in_train"] = data.novel_in_train
    return {
        point: value
        for point, value in points.items()
        if point not in data.protocol_options and _given(config, _KEYS[point], weakest)
    }


_KEYS = {
    "input_size": "Data.val_size",
    "interleaved_folds": "Data.use_split_coco",
    "resize": "Data.resized_val",
    "label_size": "Data.ori_resize",
    "novel_in_train": "Data.novel_in_train",
}


def _given(config: Config, key: str, weakest: str) -> bool:
    source = config.where(key)
    return source.startswith("--opts") or (weakest == "default" and source != "default")
