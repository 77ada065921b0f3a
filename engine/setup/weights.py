"""Trained weights: loading them into a network that they must have been trained for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fewseg.dataset.classes.split import ClassSplit
from fewseg.engine.setup.lookup import find_base_learner, missing_base_learner
from fewseg.engine.setup.pretrained import load_pretrained
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.model import create_base_learner
from fewseg.model.checkpoint.published import load_published, load_strict
from fewseg.model.contract import Network
from fewseg.model.create import BASE_LEARNERS, METHODS
from fewseg.util.checkpoint import load_checkpoint, load_weights
from fewseg.util.config import Config
from fewseg.util.errors import CheckpointError, as_word
from fewseg.util.log import get_log

BINDING = ("arch", "backbone", "data_set", "fold", "base_classes")
"""Entries of a checkpoint's metadata in which it must agree with the network."""

_LOOK_UP = "auto"


def describe(config: Config, split: ClassSplit) -> dict[str, Any]:
    """Return what a network is, for the metadata of its checkpoints."""
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
    """Put fold and shot into a path like ``exp/fold{fold}_shot{shot}/best.safetensors``."""
    return Path(path.replace("{fold}", str(config.Data.split)).replace("{shot}", str(config.Data.shot)))


def load_trained(
    network: nn.Module, path: str | Path, expected: Mapping[str, Any], *, whole: bool = False
) -> dict[str, str]:
    """Load a checkpoint of ours, or a published one, into ``network``.

    Args:
        network: a few-shot model or a base learner.
        path: ``*.safetensors`` is ours, anything else published.
        expected: what the network is; see ``describe``.
        whole: refuse a checkpoint that lacks weights for this number of supports; see ``load_strict``.

    Returns:
        The method's options that it runs under instead of those it was built with; as ``load_strict``.

    Raises:
        CheckpointError: no such file, or one of another method, backbone, fold or class count.
    """
    ours = Path(path).suffix == ".safetensors"
    if ours:
        state, meta = load_checkpoint(path)
        differing = [key for key in BINDING if key in meta and meta[key] != expected[key]]
        if differing:
            theirs = ", ".join(f"{key} {as_word(meta[key])}" for key in differing)
            wanted = ", ".join(f"{key} {expected[key]}" for key in differing)
            raise CheckpointError(
                f"{path}: is of {theirs}, but {wanted} is wanted; choose its own checkpoint"
            )
    else:
        state = load_weights(path)
    try:
        return (load_strict if ours else load_published)(network, state, whole=whole)
    except ValueError as failure:
        raise CheckpointError(f"{path}: {failure}") from failure


def start_weights(network: Network, config: Config, split: ClassSplit) -> str:
    """Give a new network the weights that training starts from, and return where those come from.

    A checkpoint where ``Train.weight`` names one; else a few-shot model with a base learner takes the trained
    base learner's, and everything else its backbone's ImageNet weights.
    """
    method = config.Method
    if config.Train.weight is not None:
        path = fill(config.Train.weight, config)
        load_trained(network, path, describe(config, split), whole=True)
        what, origin = "starting from", str(path)
    elif network.holds_base_learner or (method.base_weight and not trains_base_learner(config)):
        path = base_weight_path(config, split)
        _adopt_base_learner(network, path, config, split)
        what, origin = "base learner:", str(path)
    else:
        what = "backbone:"
        origin = load_pretrained(network.backbone, method.pretrained, network=network)
    get_log("engine").info("%s %s", what, origin)
    return origin


def base_weight_path(config: Config, split: ClassSplit) -> Path:
    """Return where the trained base learner lies: as configured, or found among those trained here.

    Raises:
        CheckpointError: there are none.
    """
    given = config.Method.base_weight
    if given in (None, _LOOK_UP):
        described = {**describe(config, split), "arch": _base_name(config)}
        return find_base_learner(config, {key: described[key] for key in (*BINDING, "backbone_options")})
    path = fill(given, config)
    if not path.is_file():
        raise CheckpointError(f"{path}: {missing_base_learner(config, _base_name(config))}")
    return path


def _base_name(config: Config) -> str:
    """Return whose weights are taken over: the config's base learner, the method's own, or the first."""
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
