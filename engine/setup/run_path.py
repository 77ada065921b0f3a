"""The folder of a run: ``exp/pascal/bam_resnet50/split0_shot1``, and in the name what sets the run apart."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path, PurePath

from fewseg.engine.setup.stage import trains_base_learner
from fewseg.util.config import Config, load_config
from fewseg.util.errors import ConfigError
from fewseg.util.runs.name import TRAINING, Effect, differences, in_file_name, readable, short_key

RUN_CONFIG, RUN_LOG = "config.yaml", "train.log"
"""Files of every run's folder: the complete config that started it, and what it said."""

_SHIPPED = Path(__file__).resolve().parents[2] / "config"
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


def run_folder(config: Config) -> Path:
    """Return the folder of the run that ``config`` describes.

    Where ``config`` is the ``config.yaml`` of a run, and nothing was changed that makes another run: the
    folder that it lies in. Where ``Train.save_path`` is set: that, with ``{fold}``, ``{shot}`` and ``{key}``
    filled in. Else the folder by custom, whose name goes on with the data root's name and with what differs
    from the shipped config: ``split0_shot1_clothing_base_lr0.1_5d7c0a3e``.

    Raises:
        ConfigError: ``save_path`` has another placeholder.
    """
    home = _home(config)
    if home is not None:
        return home
    if config.Train.save_path is not None:
        return Path(_filled(config.Train.save_path, config))
    plain = plain_folder(config)
    return plain.with_name("_".join(part for part in (plain.name, set_apart(config, TRAINING)) if part))


def plain_folder(config: Config) -> Path:
    """Return the folder by custom of a run that is as shipped; all runs before had such a name.

    The models of a base learner have no shot: ``exp/pascal/pspnet_resnet50/split0``.
    """
    data, method = config.Data, config.Method
    shot = "" if trains_base_learner(config) else f"_shot{data.shot}"
    return Path("exp") / data.data_set / f"{method.arch}_{method.backbone}" / f"split{data.split}{shot}"


def set_apart(config: Config, effects: Collection[Effect]) -> str:
    """Return the data root's name, where it is not the shipped one, and ``label``."""
    root = _root_name(config)
    own = [in_file_name(root)] if root not in ("", _root_name(shipped_config(config))) else []
    return "_".join(part for part in (*own, label(config, effects)) if part)


def label(config: Config, effects: Collection[Effect]) -> str:
    """Return what sets ``config`` apart from the shipped one, as a part of a file name; empty: nothing does.

    Args:
        config: of a training or a test.
        effects: ``TRAINING`` or ``TEST`` of ``util.runs.name``.
    """
    different = differences(config, shipped_config(config), effects)
    return f"{readable(different)}_{key(config, effects)}" if different else ""


def key(config: Config, effects: Collection[Effect]) -> str:
    """Return eight hex digits of all that counts in ``config``; see ``util.runs.name.short_key``."""
    return short_key(
        config, _default(config.Data.data_set, config.Method.arch, config.Method.backbone), effects
    )


def shipped_config(config: Config) -> Config:
    """Return the config that this project ships for a data set, a method and a backbone.

    Not the file that was named: a config of one's own that builds on a shipped one, the ``config.yaml`` of a
    run, or ``--opts`` give a run the same name. Where none is shipped, all that is set counts as different.
    """
    return _shipped(config.Data.data_set, config.Method.arch, config.Method.backbone)


@lru_cache
def _shipped(data_set: str, arch: str, backbone: str) -> Config:
    path = _SHIPPED / data_set / in_file_name(f"{arch}_{backbone}.yaml")
    return load_config(path) if path.is_file() else _default(data_set, arch, backbone)


@lru_cache
def _default(data_set: str, arch: str, backbone: str) -> Config:
    """Return the schema's defaults."""
    method = {"arch": arch, "backbone": backbone}
    return Config.model_validate(
        {"Data": {"data_set": data_set}, "Train": {}, "Method": method, "Test_Finetune": {}}
    )


def _home(config: Config) -> Path | None:
    """Return the folder of the run whose ``config.yaml`` this is, unless ``--opts`` made it another run."""
    file = config.file
    if file is None or file.name != RUN_CONFIG or not (file.parent / RUN_LOG).is_file():
        return None
    own = load_config(file)
    another = own.Train.save_path != config.Train.save_path or differences(
        config, own, [Effect.NAME, *TRAINING]
    )
    return None if another else file.parent


def _root_name(config: Config) -> str:
    return PurePath(config.Data.data_root or "").name


def _filled(path: str, config: Config) -> str:
    values = {"fold": str(config.Data.split), "shot": str(config.Data.shot), "key": key(config, TRAINING)}
    for name in _PLACEHOLDER.findall(path):
        if name not in values:
            raise ConfigError(
                f"{config.where('Train.save_path')}: Train.save_path: {{{name}}} is no placeholder; "
                "there are {fold}, {shot} and {key}"
            )
    return _PLACEHOLDER.sub(lambda found: values[found[1]], path)
