"""Finding the weights of an earlier training among the folders of runs, by what they say of themselves."""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

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
"""A key that tells no two trainings apart here, for it says where the base learner lay in several ways."""


def find_trained(config: Config, name: str) -> Path:
    """Return the weights of the run that ``config`` describes, for a test.

    Those in the run's own folder. Where it has none, and has its folder by custom, those of the one other run
    of the same method, fold and shot that was trained alike and differs least in what a test may change: one
    that lies in a folder named by older rules, or that was trained on masks and is tested on boxes.

    Args:
        config: of the test.
        name: of the file of weights.

    Raises:
        CheckpointError: no run fits, or several do; one line that names them.
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
    """Return the best weights of the trained base learner that fits a few-shot model.

    The one that was trained as shipped, on the same data root, where it fits. Else the one that does.

    Args:
        config: of the few-shot model.
        wanted: entries of the checkpoint's metadata, among them the base learner's name, ``arch``.

    Raises:
        CheckpointError: none fits, or several do; one line that names them.
    """
    as_shipped = _base_config(config, wanted["arch"])
    usual = run_folder(as_shipped) / BEST
    found = _runs(plain_folder(as_shipped), BEST)
    misfits = {path: _misfit(path, theirs, config, wanted) for path, theirs in found.items()}
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


def shorter_run(config: Config) -> Path | None:
    """Return the folder of a run that was trained alike but for another number of epochs, if there is one."""
    runs = {} if config.Train.save_path is not None else _runs(plain_folder(config), STATE)
    for state, theirs in runs.items():
        if theirs is not None and [*_differing(theirs, config, TRAINING)] == ["Train.epochs"]:
            return state.parent
    return None


def missing_base_learner(config: Config, name: str) -> str:
    """Say that the base learner is missing, and how to train it."""
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
    given = " ".join(f"{key} {value}" for key, value in opts.items())
    return (
        f"the trained base learner of fold {data.split} is missing; train it by python train.py "
        f"--config config/{data.data_set}/{name}_{method.backbone}.yaml --opts {given}, "
        "or name one by --opts base_weight PATH"
    )


def otherwise(folder: Path, config: Config, effects: Collection[Effect]) -> str:
    """Say in which keys the training in a folder differs from ``config``: " with base_lr 0.1"; or nothing."""
    different = _differing(_config_of(folder), config, effects)
    shown = [f"{key_path.rpartition('.')[2]} {value}" for key_path, value in different.items()]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return f" with {', '.join(shown[:4])}{more}" if shown else ""


def _tell_differences(folder: Path, config: Config, effects: Collection[Effect] = (Effect.TRAINING,)) -> None:
    """Warn where weights were trained otherwise than their folder's name, and ``config``, say."""
    if said := otherwise(folder, config, effects):
        get_log("engine").warning("%s was trained%s, other than the config says", folder, said)


def _other_runs(config: Config, name: str) -> dict[Path, Config | None]:
    """Return the weights of runs of the same method, fold and shot, each with its config.

    Those by custom, or those of the same ``save_path`` but for its key, and the one whose ``config.yaml`` was
    read.
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
    """Return the weights in a folder by custom, and in those whose names go on after it; with configs."""
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
    different = differences(theirs, config, effects)
    different.pop(_UNTOLD, None)
    if Effect.TRAINING in effects and config.Data.data_set == "folder" and not _same_root(theirs, config):
        different["Data.data_root"] = theirs.Data.data_root
    return different


def _described(path: Path, theirs: Config | None, config: Config) -> str:
    return f"{path}{otherwise(path.parent, config, TRAINING)}"


def _misfit(path: Path, theirs: Config | None, config: Config, wanted: Mapping[str, Any]) -> str:
    """Say what of a base learner does not fit; nothing where it fits."""
    try:
        meta = read_meta(path)
    except CheckpointError:
        return "no readable checkpoint"
    wrong = [f"{key} {meta[key]}" for key, value in wanted.items() if key in meta and meta[key] != value]
    if config.Data.data_set == "folder" and theirs is not None and not _same_root(theirs, config):
        wrong.append(f"data_root {theirs.Data.data_root}")
    return ", ".join(wrong)


def _base_config(config: Config, name: str) -> Config:
    """Return the shipped config of the base learner, on the data root and the fold of ``config``."""
    shipped = shipped_config(config.with_values(Method={"arch": name}))
    place = {"data_root": config.Data.data_root, "split": config.Data.split}
    return shipped.with_values(Data=place)


def _same_root(one: Config, other: Config) -> bool:
    return PurePath(one.Data.data_root or "").name == PurePath(other.Data.data_root or "").name
