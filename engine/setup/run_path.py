"""The folder of a run: ``exp/pascal/bam_resnet50/split0_shot1`` where its config is the shipped one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path, PurePath

from fewseg.engine.setup.protocols import settled
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.engine.setup.tested_data import tested_data
from fewseg.util.config import Config, load_config
from fewseg.util.config.differences import TRAINING, differences, in_file_name, readable, short_key
from fewseg.util.config.types import Effect
from fewseg.util.errors import ConfigError

RUNS = Path("exp")
"""The folder of all runs, unless ``Train.save_path`` names another."""

RUN_CONFIG, RUN_LOG = "config.yaml", "train.log"
"""Files in the folder of every run: the complete config that it was started with, and its log."""

_SHIPPED = Path(__file__).resolve().parents[2] / "config"
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


def run_folder(config: Config) -> Path:
    """Return the folder of the run that ``config`` describes.

    If ``config`` is the ``config.yaml`` of a run, and nothing was changed that makes it another run, this is
    the folder of that file. If ``Train.save_path`` is set, it is that path with ``{fold}``, ``{shot}`` and
    ``{key}`` filled in. Otherwise it is the default folder, to whose name the data root's name and the
    differences from the shipped config are added: ``split0_shot1_clothing_base_lr0.1_5d7c0a3e``.

    Raises:
        ConfigError: ``save_path`` has another placeholder.
    """
    folder = _folder_of_config(config)
    if folder is not None:
        return folder
    if config.Train.save_path is not None:
        return Path(_filled(config.Train.save_path, config))
    plain = plain_folder(config)
    return plain.with_name("_".join(part for part in (plain.name, name_suffix(config, TRAINING)) if part))


def plain_folder(config: Config) -> Path:
    """Return the default folder of a run, without the differences from the shipped config.

    A base learner has no shot: ``exp/pascal/pspnet_resnet50/split0``.
    """
    data, method = config.Data, config.Method
    shot = "" if trains_base_learner(config) else f"_shot{data.shot}"
    return RUNS / data.data_set / f"{method.arch}_{method.backbone}" / f"split{data.split}{shot}"


def name_suffix(config: Config, effects: Collection[Effect]) -> str:
    """Return the name of the data root, where it is not the shipped one, followed by ``label``."""
    root = _root_name(config)
    name = [_root_in_name(root)] if root not in ("", _root_name(shipped_config(config))) else []
    return "_".join(part for part in (*name, label(config, effects)) if part)


def tested_root(config: Config) -> str:
    """Return the name of the root of other tested data, where it is not that of the shipped file of the data.

    Empty for a test on the data of the training.
    """
    tested = tested_data(config)
    shipped = _SHIPPED / "_base_/dataset" / f"{tested.Data.data_set}.yaml"
    if tested is config or (shipped.is_file() and _root_name(load_config(shipped)) == _root_name(tested)):
        return ""
    return _root_in_name(_root_name(tested))


def label(config: Config, effects: Collection[Effect]) -> str:
    """Return the differences of ``config`` from the shipped one as a part of a file name; empty without any.

    Args:
        config: the config of a training or a test.
        effects: the effects of the keys that count: ``TRAINING`` or ``TEST`` of ``util.config.differences``.
    """
    different = differences(settled(config), shipped_config(config), effects)
    return f"{readable(different)}_{key(config, effects)}" if different else ""


def key(config: Config, effects: Collection[Effect]) -> str:
    """Return eight hex digits of the keys that count; see ``util.config.differences.short_key``."""
    usual = _default(config.Data.data_set, config.Method.arch, config.Method.backbone)
    return short_key(settled(config), usual, effects)


def run_key(config: Config) -> str:
    """Return 12 hex digits of all that the weights of a training depend on, except for other weights.

    Two configs have the same key where one training serves both, on any machine: of a path the last two parts
    count, of the data root its name, and paths of weights made by other trainings (``base_weight``,
    ``mined_labels``) do not count.
    """
    return _long_key(config, TRAINING)


def result_key(config: Config) -> str:
    """Return 12 hex digits of all that the figures of a test depend on, except for the weights.

    The config is that of one fold with one number of shots; see ``run_key`` for paths.
    """
    return _long_key(config, (*TRAINING, Effect.TEST))


def _long_key(config: Config, effects: Collection[Effect]) -> str:
    plain = settled(config).with_values(
        Data={"mined_labels": None}, Method={"base_weight": None}, Test_Finetune={"weight": None}
    )
    data = config.Data
    shot = None if trains_base_learner(config) else data.shot
    usual = _default(data.data_set, config.Method.arch, config.Method.backbone)
    root = "" if _root_name(config) == _root_name(shipped_config(config)) else _root_name(config)
    content = [data.data_set, config.Method.arch, config.Method.backbone, data.split, shot, root]
    different = differences(plain, usual, effects)
    return hashlib.sha256(json.dumps([content, different], sort_keys=True).encode()).hexdigest()[:12]


def shipped_config(config: Config) -> Config:
    """Return the config that this project ships for a data set, a method and a backbone.

    It need not be the file that was named: a config of your own that builds on a shipped one, the
    ``config.yaml`` of a run, and ``--opts`` give a run the same name. Where none is shipped, the schema's
    defaults take its place.
    """
    return _shipped(config.Data.data_set, config.Method.arch, config.Method.backbone)


def shipped_adaptation(config: Config) -> Config:
    """Return the config that this project ships for a method under the adaptation of ``config``.

    Where none is shipped, or none for this method, it is ``shipped_config``.
    """
    data, method, adapt = config.Data, config.Method, config.Test_Finetune.adapt
    if adapt is not None:
        shipped = _shipped(data.data_set, adapt, method.backbone)
        if shipped.Method.arch == method.arch:
            return shipped
    return shipped_config(config)


def shipped_path(config: Config) -> Path:
    """Return the path of the config for the data set, the method and the backbone of ``config``.

    It is relative where it lies below the working directory; the file need not exist.
    """
    path = _shipped_path(config.Data.data_set, config.Method.arch, config.Method.backbone)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _shipped_path(data_set: str, arch: str, backbone: str) -> Path:
    return _SHIPPED / data_set / in_file_name(f"{arch}_{backbone}.yaml")


@lru_cache
def _shipped(data_set: str, arch: str, backbone: str) -> Config:
    path = _shipped_path(data_set, arch, backbone)
    return load_config(path) if path.is_file() else _default(data_set, arch, backbone)


@lru_cache
def _default(data_set: str, arch: str, backbone: str) -> Config:
    """Return a config of the schema's defaults."""
    method = {"arch": arch, "backbone": backbone}
    return Config.model_validate(
        {"Data": {"data_set": data_set}, "Train": {}, "Method": method, "Test_Finetune": {}}
    )


def _folder_of_config(config: Config) -> Path | None:
    """Return the folder of the run whose ``config.yaml`` this is, unless ``--opts`` made it another run."""
    file = config.file
    if file is None or file.name != RUN_CONFIG or not (file.parent / RUN_LOG).is_file():
        return None
    stored = load_config(file)
    same_path = stored.Train.save_path == config.Train.save_path
    different = differences(settled(config), settled(stored), [Effect.NAME, *TRAINING])
    return file.parent if same_path and not different else None


def _root_name(config: Config) -> str:
    return PurePath(config.Data.data_root or "").name


def _root_in_name(root: str) -> str:
    """Return the name of a data root as a part of a file name, which keeps no letter beyond ASCII."""
    plain = in_file_name(root)
    return plain if root.isascii() else f"{plain}{hashlib.sha256(root.encode()).hexdigest()[:6]}"


def _filled(path: str, config: Config) -> str:
    values = {"fold": str(config.Data.split), "shot": str(config.Data.shot), "key": key(config, TRAINING)}
    for name in _PLACEHOLDER.findall(path):
        if name not in values:
            raise ConfigError(
                f"{config.where('Train.save_path')}: Train.save_path: {{{name}}} is no placeholder; "
                "there are {fold}, {shot} and {key}"
            )
    return _PLACEHOLDER.sub(lambda match: values[match[1]], path)
