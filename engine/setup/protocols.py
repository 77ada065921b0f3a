"""The protocols of a config for training and for testing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewseg.dataset.classes.fold import default_list
from fewseg.dataset.classes.shared_names import NAMES
from fewseg.dataset.episodes.protocol import (
    LIST_FILES,
    LISTED,
    PROTOCOLS,
    TRAINING_POINTS,
    Protocol,
    load_protocol,
)
from fewseg.dataset.labels import FOLDS
from fewseg.engine.setup.tested_data import is_given, tested_data, tests_other_data
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError, shortened

Difference = dict[str, tuple[Any, Any]]
"""Point -> (value in the preset, actual value)."""


DATA_POINTS = ("min_area", "small_classes")
"""Points that config files set for a data set, for all protocols."""

_OF_DATA_SET = (*DATA_POINTS, "episodes")
"""Points that a config of other data than the tested ones does not set."""

LIST_KEYS = {"train_images": "train_list", "test_images": "val_list"}

_KEYS = {
    "input_size": "Data.val_size",
    "interleaved_folds": "Data.use_split_coco",
    "resize": "Data.resized_val",
    "label_size": "Data.ori_resize",
    "novel_in_train": "Data.novel_in_train",
}
"""Point -> the published key for it."""

_COMMAND_LINE = "--opts"
"""The beginning of the source of a key that was given on the command line."""

_SETTLED = ("input_size", "interleaved_folds")
"""Points that a key with a default sets in both directions, but only where a config gives it."""


def training_protocol(config: Config) -> Protocol:
    """Return ``Data.protocol`` with the points that the config changes.

    Where the fold trains on all classes, none is left to select snapshots, and the last one counts.

    Raises:
        ConfigError: there is no such protocol or point, or such a fold is to select on novel classes.
    """
    data = config.Data
    _require_known(config, "Data.protocol", data.protocol)
    lists = {point: source_of(config, point) for point in LIST_KEYS}
    points = lists | _published_keys(config) | data.protocol_options
    protocol = load_protocol(data.protocol, data.data_set, **points)
    if protocol.selection != "novel" or data.data_set not in NAMES or data.split != FOLDS:
        return protocol
    if "selection" in data.protocol_options:
        key = "Data.protocol_options.selection"
        raise ConfigError(
            f"{config.where(key)}: {key}: fold {data.split} of "
            f"{data.data_set} trains on all classes, so no novel one can select snapshots; set it to last "
            "or held_out_base"
        )
    return protocol.with_overrides(selection="last")


def settled(config: Config) -> Config:
    """Return the config with the values that its protocol gives to keys that it does not set.

    Such a key has no effect, although it has a default, until it is set. As the complete config of a run
    states every key, it must state what had an effect.
    """
    open_keys = [key for point, key in _KEYS.items() if point in _SETTLED and config.where(key) == "default"]
    if not open_keys:
        return config
    protocol = training_protocol(config)
    values = {"val_size": protocol.input_size}
    if config.Data.data_set == "coco":
        values["use_split_coco"] = protocol.interleaved_folds
    names = [key.partition(".")[2] for key in open_keys]
    return config.with_values(Data={name: values[name] for name in names if name in values})


def test_protocol(config: Config) -> Protocol:
    """Return the protocol that models are tested under: that of their training, or another one.

    Sizes and scores that a config file sets belong to its own protocol. Under another ``test_protocol``, such
    points count only if they are given on the command line. Where other data are tested, the file of these
    data may name the protocol, and its ``protocol_options`` replace what the training's config sets for its
    own data.
    """
    trained, tested, test = training_protocol(config), tested_data(config), config.Test_Finetune
    other = tested is not config
    named = tested.Data.protocol if other and is_given(tested, "protocol") else config.Data.protocol
    name = test.test_protocol or named
    protocol = trained
    if other or name != config.Data.protocol:
        _require_known(config, "Test_Finetune.test_protocol", name)
        points = _carried_points(config, name)
        if other:
            points |= _points_of_data(config, whole=test.test_protocol is None or name == named)
        protocol = load_protocol(name, tested.Data.data_set, **points).trained_under(trained)
        chosen = other and tested.where("Data.val_list").startswith(_COMMAND_LINE)
        if chosen or not list_of(tested, "test_images", protocol).is_file():
            protocol = protocol.with_overrides(test_images=source_of(tested, "test_images"))
    counts = {"episodes": test.episodes, "seeds": test.seeds}
    return protocol.with_overrides(**{key: value for key, value in counts.items() if value is not None})


def _carried_points(config: Config, name: str) -> dict[str, Any]:
    """Return the points of the training's config that also hold for a test of other data or protocol."""
    other = tests_other_data(config)

    def holds(point: str) -> bool:
        if other:
            return name == config.Data.protocol and point not in _OF_DATA_SET
        return point in DATA_POINTS

    given = _published_keys(config) | config.Data.protocol_options
    return {point: value for point, value in given.items() if holds(point) or _on_command_line(config, point)}


def _points_of_data(config: Config, *, whole: bool) -> dict[str, Any]:
    """Return the points that the file of other tested data sets, except for those that ``config`` was told.

    Args:
        config: config of the test.
        whole: whether the test is under the protocol that the file means; if not, only the points of the
            data count, and those that were changed on the command line.
    """
    tested = tested_data(config)
    return {
        point: value
        for point, value in tested.Data.protocol_options.items()
        if (whole or point in DATA_POINTS or _on_command_line(tested, point))
        and not _on_command_line(config, point)
    }


def test_difference(config: Config, protocol: Protocol) -> Difference:
    """Return the differences of testing from the preset of the protocol's name."""
    departures = protocol.difference(load_protocol(protocol.name, tested_data(config).Data.data_set))
    return {point: pair for point, pair in departures.items() if point not in TRAINING_POINTS}


def training_difference(config: Config, protocol: Protocol) -> Difference:
    """Return the differences of training from the preset of ``Data.protocol``."""
    departures = protocol.difference(load_protocol(config.Data.protocol, config.Data.data_set))
    return {point: pair for point, pair in departures.items() if point in TRAINING_POINTS}


def source_of(config: Config, point: str) -> str:
    """Return the source in ``LIST_FILES`` whose list the config names, or ``own``."""
    if config.Data.data_set not in LISTED:
        return "own"
    name = _named_list(config, point).name
    return next((source for source, file in LIST_FILES.items() if file == name), "own")


def list_of(config: Config, point: str, protocol: Protocol) -> Path:
    """Return the list of a protocol's images: the config's list, or another list in the same folder."""
    named, source = _named_list(config, point), getattr(protocol, point)
    return named if source in ("own", source_of(config, point)) else named.with_name(LIST_FILES[source])


def _named_list(config: Config, point: str) -> Path:
    data = config.Data
    named = getattr(data, LIST_KEYS[point])
    return Path(named) if named else default_list(data.data_set, data.data_root or "", LIST_KEYS[point])


def _require_known(config: Config, key: str, name: str) -> None:
    if name not in PROTOCOLS:
        known = ", ".join(PROTOCOLS)
        raise ConfigError(f"{config.where(key)}: {key}: must be one of {known}, got {shortened(name)}")


def _published_keys(config: Config) -> dict[str, Any]:
    """Return the points that published keys set."""
    data = config.Data
    points: dict[str, Any] = {"input_size": data.val_size, "novel_in_train": data.novel_in_train}
    points["interleaved_folds"] = data.use_split_coco if data.data_set == "coco" else None
    points["resize"] = None if data.resized_val else "shrink"
    points["label_size"] = None if data.ori_resize else "input"
    return {
        point: value
        for point, value in points.items()
        if value is not None and config.where(_KEYS[point]) != "default"
    }


def _on_command_line(config: Config, point: str) -> bool:
    keys = [f"Data.protocol_options.{point}", _KEYS.get(point, "")]
    return any(config.where(key).startswith(_COMMAND_LINE) for key in keys)
