"""Find the weights of an earlier training among the folders of runs, by their configs and metadata."""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

from fewseg.engine.setup.protocols import settled
from fewseg.engine.setup.run_path import RUN_CONFIG, key, plain_folder, run_folder, shipped_config
from fewseg.engine.training.snapshot import BEST, STATE
from fewseg.util.checkpoint import read_meta
from fewseg.util.config import Config, load_config
from fewseg.util.config.differences import TRAINING, differences
from fewseg.util.config.types import Effect
from fewseg.util.errors import CheckpointError, ConfigError
from fewseg.util.log import get_log

_ANY_KEY = "?" * 8

_UNTOLD = "Method.base_weight"
"""A key that is not compared, because the same base learner can be named in several ways."""


def find_trained(config: Config, name: str) -> Path:
    """Return the path of the weights of the run that ``config`` describes, for a test.

    They are in the run's own folder. Otherwise they are those of the only other run of the same method, fold
    and shot that was trained with the same settings and differs least in the settings that a test may change.
    Such a run has a folder named by older rules, or was trained on masks and is tested on boxes.

    Args:
        config: config of the test.
        name: file name of the weights.

    Raises:
        CheckpointError: no run matches, or several do; the message names them.
    """
    path = run_folder(config) / name
    if path.is_file():
        _tell_differences(path.parent, config)
        return path
    others = _other_runs(config, name)
    fitting = [other for other, theirs in others.items() if not _differing(theirs, config, [Effect.TRAINING])]
    distance = {other: len(_differing(others[other], config, [Effect.BOTH])) for other in fitting}
    nearest = [other for other in fitting if distance[other] == min(distance.values())]
    if len(nearest) == 1:
        _tell_differences(nearest[0].parent, config, TRAINING)
        return nearest[0]
    there = "; ".join(_described(other, theirs, config) for other, theirs in others.items())
    if nearest:
        raise CheckpointError(
            f"{path}: no such file, and {len(nearest)} runs fit ({there}); name one: --weight PATH"
        )
    raise CheckpointError(
        f"{path}: no such file; train it with the same settings, or name other weights: --weight PATH"
        + (f" (there are {there})" if there else "")
    )


def find_base_learner(config: Config, wanted: Mapping[str, Any]) -> Path:
    """Return the path of the best weights of the trained base learner that matches a few-shot model.

    This is the one trained by the shipped config on the same data root, or else the only other match.

    Args:
        config: config of the few-shot model.
        wanted: required entries of the checkpoint's metadata, with the base learner's name, ``arch``.

    Raises:
        CheckpointError: none matches, or several do; the message names them.
    """
    as_shipped = _base_config(config, wanted["arch"])
    usual = run_folder(as_shipped) / BEST
    runs = _runs(plain_folder(as_shipped), BEST)
    misfits = {path: _misfit(path, theirs, config, wanted) for path, theirs in runs.items()}
    fitting = [path for path, misfit in misfits.items() if not misfit]
    if usual in fitting or len(fitting) == 1:
        return usual if usual in fitting else fitting[0]
    if fitting:
        raise CheckpointError(
            f"{len(fitting)} trained base learners fit: {', '.join(map(str, fitting))}; "
            "name one: --opts base_weight PATH"
        )
    there = "; ".join(f"{path} is of {misfit}" for path, misfit in misfits.items())
    raise CheckpointError(
        f"{usual}: {missing_base_learner(config, wanted['arch'])}" + (f" ({there})" if there else "")
    )


def similar_run(config: Config) -> tuple[Path, str] | None:
    """Return a run in another folder that may be meant, and in what it differs; None where there is none.

    It has the same settings, in a folder that was named by older rules, or differs in its length.
    """
    runs = {} if config.Train.save_path is not None else _runs(plain_folder(config), STATE)
    for state, theirs in runs.items():
        if theirs is None or not _same_root(theirs, config):
            continue
        different = [*_differing(theirs, config, TRAINING)]
        if different and {"Train.epochs", "Train.max_steps"}.issuperset(different):
            return state.parent, "differs in its length only"
        if not different and theirs.Method.base_weight == config.Method.base_weight:
            return state.parent, "has the same settings"
    return None


def missing_base_learner(config: Config, name: str) -> str:
    """Return a message that the base learner is missing, and how to train it."""
    data, method = config.Data, config.Method
    opts: dict[str, object] = {"split": data.split}
    base = _base_config(config, name)
    shipped = shipped_config(base)
    if not _same_root(base, shipped):
        opts["data_root"] = data.data_root
    opts |= {
        f"Method.backbone_options.{option}": value
        for option, value in method.backbone_options.items()
        if shipped.Method.backbone_options.get(option) != value
    }
    changes = " ".join(f"{key} {value}" for key, value in opts.items())
    return (
        f"the trained base learner of fold {data.split} is missing; train it by python train.py "
        f"--config config/{data.data_set}/{name}_{method.backbone}.yaml --opts {changes}, "
        "or name one by --opts base_weight PATH"
    )


def otherwise(folder: Path, config: Config, effects: Collection[Effect]) -> str:
    """Return how the training in a folder differs from ``config``, such as " with base_lr 0.1", or ""."""
    different = _differing(_config_of(folder), config, effects)
    shown = [f"{key_path.rpartition('.')[2]} {value}" for key_path, value in different.items()]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return f" with {', '.join(shown[:4])}{more}" if shown else ""


def _tell_differences(folder: Path, config: Config, effects: Collection[Effect] = (Effect.TRAINING,)) -> None:
    """Warn if weights were trained with other settings than ``config``."""
    if said := otherwise(folder, config, effects):
        get_log("engine").warning("%s was trained%s, other than the config says", folder, said)


def _other_runs(config: Config, name: str) -> dict[Path, Config | None]:
    """Return path and config of the weights of all runs of the same method, fold and shot.

    Their folders are default folders, or those of the same ``save_path`` with another key; the folder whose
    ``config.yaml`` was read is added.
    """
    if config.Train.save_path is None:
        runs = _runs(plain_folder(config), name)
    else:
        pattern = glob.escape(str(run_folder(config) / name)).replace(key(config, TRAINING), _ANY_KEY)
        runs = {Path(path): _config_of(Path(path).parent) for path in sorted(glob.glob(pattern))}
    folder = config.file.parent if config.file is not None and config.file.name == RUN_CONFIG else None
    theirs = _config_of(folder) if folder is not None and (folder / name).is_file() else None
    if folder is not None and theirs is not None and plain_folder(theirs) == plain_folder(config):
        runs[folder / name] = theirs
    return runs


def _runs(plain: Path, name: str) -> dict[Path, Config | None]:
    """Return path and config of the weights in a default folder, and in folders whose names begin with it."""
    folders = [plain, *sorted(plain.parent.glob(f"{plain.name}_*"))]
    return {folder / name: _config_of(folder) for folder in folders if (folder / name).is_file()}


def _config_of(folder: Path) -> Config | None:
    try:
        return load_config(folder / RUN_CONFIG)
    except ConfigError:
        return None


def _differing(theirs: Config | None, config: Config, effects: Collection[Effect]) -> dict[str, Any]:
    if theirs is None:
        return {}
    different = differences(settled(theirs), settled(config), effects)
    different.pop(_UNTOLD, None)
    if Effect.TRAINING in effects and config.Data.data_set == "folder" and not _same_root(theirs, config):
        different["Data.data_root"] = theirs.Data.data_root
    return different


def _described(path: Path, theirs: Config | None, config: Config) -> str:
    return f"{path}{otherwise(path.parent, config, TRAINING)}"


def _misfit(path: Path, theirs: Config | None, config: Config, wanted: Mapping[str, Any]) -> str:
    """Return in what a base learner does not match, or "" if it matches."""
    try:
        meta = read_meta(path)
    except CheckpointError:
        return "no readable checkpoint"
    wrong = [f"{key} {meta[key]}" for key, value in wanted.items() if key in meta and meta[key] != value]
    if config.Data.data_set == "folder" and theirs is not None and not _same_root(theirs, config):
        wrong.append(f"data_root {theirs.Data.data_root}")
    return ", ".join(wrong)


def _base_config(config: Config, name: str) -> Config:
    """Return the shipped config of the base learner, with the data root and the fold of ``config``."""
    shipped = shipped_config(config.with_values(Method={"arch": name}))
    place = {"data_root": config.Data.data_root, "split": config.Data.split}
    return shipped.with_values(Data=place)


def _same_root(one: Config, other: Config) -> bool:
    return PurePath(one.Data.data_root or "").name == PurePath(other.Data.data_root or "").name
