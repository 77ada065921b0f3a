"""The data that a model is tested on: those of its training, or others that ``Test_Finetune.data`` names."""

from __future__ import annotations

from functools import lru_cache

from fewseg.util.config import Config, load_config
from fewseg.util.config.plain_yaml import as_text
from fewseg.util.errors import ConfigError

PLACE = ("data_set", "data_root", "train_list", "val_list", "use_split_coco", "split")
"""Keys of ``Data`` that say which data are tested; all others are those of the training."""

_RULES = ("protocol", "protocol_options")
"""Keys of ``Data`` that say how these data are tested."""


def tested_data(config: Config) -> Config:
    """Return the config whose ``Data`` describe what is tested: ``config`` itself, or ``Test_Finetune.data``.

    Raises:
        ConfigError: the file or a change to it is wrong, or there are changes and no file.
    """
    test = config.Test_Finetune
    if test.data is None:
        if test.data_opts:
            raise ConfigError(
                f"{_where(config)}: Test_Finetune.data_opts: {', '.join(test.data_opts)} would "
                "change the file of Test_Finetune.data, which is unset; name one: --data YAML"
            )
        return config
    changes: list[str] = []
    for key, value in test.data_opts.items():
        name = key.removeprefix("Data.")
        if name.partition(".")[0] not in (*PLACE, *_RULES):
            raise ConfigError(
                f"{_where(config)}: Test_Finetune.data_opts: {key} is no key of the tested data, "
                f"which are {', '.join((*PLACE, *_RULES))}; change others by --opts"
            )
        changes += [f"Data.{name}", as_text(value)]
    return _loaded(test.data, tuple(changes))


@lru_cache(maxsize=64)  # a study asks for the same file for every cell
def _loaded(path: str, changes: tuple[str, ...]) -> Config:
    """Read the file with its changes; errors name ``--data``, not the options that stand for it here."""
    try:
        return load_config(path, changes)
    except ConfigError as failure:
        message = str(failure).replace("--opts Data.", "--data ").replace("--config: ", "--data: ")
        raise ConfigError(message) from failure


def tested_annotation(config: Config) -> str:
    """Return how the supports of the test are annotated."""
    return config.Test_Finetune.test_ann_type or config.Data.ann_type


def tests_other_data(config: Config) -> bool:
    """Return whether the model is tested on other data than those of its training."""
    return config.Test_Finetune.data is not None


def tested_fold(config: Config) -> int | None:
    """Return the fold of other data that is tested; None for all classes that the training has not seen."""
    tested = tested_data(config)
    return tested.Data.split if is_given(tested, "split") else None


def is_given(tested: Config, key: str) -> bool:
    """Return whether the file of the tested data, or a change to it, states a key of ``Data``."""
    return tested.where(f"Data.{key}") != "default"


def as_tested(config: Config) -> Config:
    """Return the config with the data that are tested, as results state it."""
    tested = tested_data(config)
    if tested is config:
        return config
    keys = (*PLACE, "protocol_options")
    return config.with_values(Data={key: getattr(tested.Data, key) for key in keys})


def training_place(config: Config) -> dict[str, object]:
    """Return where the data of the training are, for a test on other data; empty for any other test."""
    if not tests_other_data(config):
        return {}
    return {key: getattr(config.Data, key) for key in PLACE}


def trained_on(config: Config) -> str | None:
    """Return the data set of the training in words, for a test on other data; None for any other test.

    The fold of the training is named where the one that is tested has another meaning.
    """
    if not tests_other_data(config):
        return None
    data = config.Data
    return data.data_set if tested_fold(config) is None else f"{data.data_set} fold {data.split}"


def _where(config: Config) -> str:
    return config.where(f"Test_Finetune.data_opts.{next(iter(config.Test_Finetune.data_opts))}")
