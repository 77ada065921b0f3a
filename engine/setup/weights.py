"""Load trained weights into a network, which must be the one that they were trained for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewseg.dataset.classes.split import ClassSplit
from fewseg.dataset.episodes.protocol import Protocol
from fewseg.engine.setup.lookup import find_base_learner, missing_base_learner
from fewseg.engine.setup.pretrained import load_pretrained
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.engine.training.snapshot import BEST, LAST
from fewseg.model import create_base_learner
from fewseg.model.checkpoint.published import load_published, load_strict
from fewseg.model.contract import Network
from fewseg.model.create import BASE_LEARNERS, METHODS
from fewseg.util.checkpoint import file_hash, load_checkpoint, load_weights, read_meta
from fewseg.util.config import Config
from fewseg.util.errors import CheckpointError, ConfigError, as_word
from fewseg.util.log import get_log

BINDING = ("arch", "backbone", "data_set", "fold", "base_classes")
"""Entries of a checkpoint's metadata that must be those of the network."""

_LOOK_UP = "auto"

_LEFT_OUT = {"base_head": "base learner", "ensemble": "ensemble"}
"""The parts of a few-shot model that a test may leave out: the meta-learner works without them."""


def describe(config: Config, split: ClassSplit) -> dict[str, Any]:
    """Return the description of a network for the metadata of its checkpoints."""
    method, data = config.Method, config.Data
    few_shot = {"shot": data.shot, "ways": data.ways, "options": dict(method.options)}
    return {
        "arch": method.arch,
        "backbone": method.backbone,
        "backbone_options": dict(method.backbone_options),
        "data_set": data.data_set,
        "fold": data.split,
        "base_classes": len(split.base),
        "image_size": data.train_h,
        **({} if trains_base_learner(config) else few_shot),
    }


def fill(path: str, config: Config) -> Path:
    """Fill fold and shot into a path such as ``exp/fold{fold}_shot{shot}/best.safetensors``."""
    return Path(path.replace("{fold}", str(config.Data.split)).replace("{shot}", str(config.Data.shot)))


def tested_weights(protocol: Protocol) -> str:
    """Return the name of the file of a run that is tested under a protocol."""
    return LAST if protocol.selection == "last" else BEST


def unusual_weights(config: Config, protocol: Protocol, path: Path) -> str:
    """Return how a checkpoint differs from the one that is tested by custom, as a part of a file name.

    ``trained1shot_last``: it was trained with another number of shots, and is not the one that the protocol
    selects among the files of a run. Empty where nothing is unusual, or where that is not known.
    """
    shot = read_meta(path).get("shot") if path.suffix == ".safetensors" else None
    parts = [f"trained{shot}shot"] if shot not in (None, config.Data.shot) else []
    others = {BEST, LAST} - {tested_weights(protocol)}
    return "_".join([*parts, *([path.stem] if path.name in others else [])])


def load_trained(
    network: nn.Module, path: str | Path, expected: Mapping[str, Any], *, whole: bool = False
) -> dict[str, str]:
    """Load a checkpoint of FewSeg, or a published one, into ``network``.

    Args:
        network: a few-shot model or a base learner.
        path: path of the checkpoint: of FewSeg if it ends in ``.safetensors``, otherwise a published one.
        expected: description of the network; see ``describe``.
        whole: refuse a checkpoint that lacks weights for this number of supports, see ``load_strict``, or has
            a base learner or an ensemble and the network has none; a test leaves these out.

    Returns:
        The options of the method that replace those that it was built with; see ``load_strict``.

    Raises:
        CheckpointError: the file is missing, or of another method, backbone, fold or number of classes.
    """
    ours = Path(path).suffix == ".safetensors"
    if ours:
        state, meta = load_checkpoint(path)
        differing = [key for key in BINDING if key in meta and meta[key] != expected[key]]
        if differing:
            theirs = ", ".join(f"{key} {as_word(meta[key])}" for key in differing)
            wanted = ", ".join(f"{key} {expected[key]}" for key in differing)
            cure = "choose its own checkpoint"
            if "data_set" in differing:
                cure += (
                    ", or test it on other data: test.py --config (that of its training) --data (the other)"
                )
            raise CheckpointError(f"{path}: is of {theirs}, but {wanted} is wanted; {cure}")
        state = state if whole else _without_absent_parts(network, state, path)
    else:
        state = load_weights(path)
    try:
        return (load_strict if ours else load_published)(network, state, whole=whole)
    except ValueError as failure:
        raise CheckpointError(f"{path}: {failure}") from failure


def _without_absent_parts(
    network: nn.Module, state: dict[str, Tensor], path: str | Path
) -> dict[str, Tensor]:
    """Return the weights without those of the known objects' parts that the network was built without."""
    there = {part for part in _LEFT_OUT if any(name.startswith(f"{part}.") for name in state)}
    absent = [part for part in there if getattr(network, part, network) is None]
    if absent:
        words = " and ".join(_LEFT_OUT[part] for part in _LEFT_OUT if part in absent)
        get_log("engine").info("%s: used without its %s, as the config says", path, words)
    return {name: value for name, value in state.items() if name.partition(".")[0] not in absent}


def start_weights(network: Network, config: Config, split: ClassSplit) -> tuple[str, str | None]:
    """Load the weights that training starts from into a new network.

    They are those of the checkpoint that ``Train.weight`` names, if any. Otherwise they are the trained base
    learner's for a few-shot model with a base learner, and the backbone's ImageNet weights for all others.

    Returns:
        Where they come from, and the SHA-256 of the base learner's checkpoint, if it is one.
    """
    method, base_learner = config.Method, None
    if config.Train.weight is not None:
        path = fill(config.Train.weight, config)
        load_trained(network, path, describe(config, split), whole=True)
        what, origin = "starting from", str(path)
    elif _starts_from_base_learner(network, config):
        path = base_weight_path(config, split)
        base_learner = file_hash(path)
        _adopt_base_learner(network, path, config, split)
        what, origin = "base learner:", str(path)
    else:
        what = "backbone:"
        origin = load_pretrained(network.backbone, method.pretrained, network=network)
    get_log("engine").info("%s %s", what, origin)
    return origin, base_learner


def base_learner_hash(network: Network, config: Config, split: ClassSplit) -> str | None:
    """Return the SHA-256 of the base learner's checkpoint that a new training would start from.

    None where it starts from no base learner, or from one whose checkpoint is not there (any more).
    """
    if not _starts_from_base_learner(network, config):
        return None
    try:
        return file_hash(base_weight_path(config, split))
    except CheckpointError:
        return None


def _starts_from_base_learner(network: Network, config: Config) -> bool:
    named = config.Method.base_weight and not trains_base_learner(config)
    return config.Train.weight is None and bool(network.holds_base_learner or named)


def trained_base_learner(config: Config) -> str | None:
    """Return the name of the base learner that a few-shot model's training starts from, if it is looked up.

    None where the training starts from the backbone's weights, or from a checkpoint that the config names.
    """
    method = config.Method
    if trains_base_learner(config) or config.Train.weight or method.base_weight not in (None, _LOOK_UP):
        return None
    if method.arch not in METHODS:
        raise ConfigError(
            f"{config.where('Method.arch')}: Method.arch: {method.arch} is no method; there are "
            f"{', '.join(METHODS)}"
        )
    wanted = method.base if method.base is not None else METHODS[method.arch].published.base
    return _base_name(config) if method.base_weight or wanted not in (None, "none") else None


def base_weight_path(config: Config, split: ClassSplit) -> Path:
    """Return the path of the trained base learner's weights, as configured or found among the runs.

    Raises:
        CheckpointError: there are none, or several match.
    """
    configured = config.Method.base_weight
    if configured in (None, _LOOK_UP):
        described = {**describe(config, split), "arch": _base_name(config)}
        return find_base_learner(config, {key: described[key] for key in (*BINDING, "backbone_options")})
    path = fill(configured, config)
    if not path.is_file():
        raise CheckpointError(f"{path}: {missing_base_learner(config, _base_name(config))}")
    return path


def _base_name(config: Config) -> str:
    """Return the base learner whose weights are loaded: the config's, the method's default, or the first."""
    chosen = None if config.Method.base == "none" else config.Method.base
    return chosen or METHODS[config.Method.arch].published.base or next(iter(BASE_LEARNERS))


def _adopt_base_learner(model: Network, path: Path, config: Config, split: ClassSplit) -> None:
    name = _base_name(config)
    whole = "high" in model.backbone.spec.roles
    learner = create_base_learner(
        name,
        backbone=model.backbone.on_rgb() if whole else config.Method.backbone,
        classes=len(split.base) + 1,
        backbone_options=config.Method.backbone_options,
    )
    load_trained(learner, path, {**describe(config, split), "arch": name})
    try:
        model.adopt(learner)
    except ValueError as failure:
        raise CheckpointError(f"{path}: {failure}") from failure
