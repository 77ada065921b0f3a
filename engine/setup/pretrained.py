"""Load pretrained weights into a backbone, which says where ImageNet's are and how to rename them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fewseg.model.backbone.contract import Backbone
from fewseg.model.checkpoint.published import load_strict
from fewseg.model.contract import Network
from fewseg.util.checkpoint import load_weights
from fewseg.util.errors import CheckpointError

FOLDER = Path("initmodel")
RANDOM = "random weights"
"""What ``load_pretrained`` returns if it loads no weights."""

_OURS = "backbone."
"""What the names of a backbone's weights begin with in checkpoints of networks that were trained here."""

_WITHOUT = "or go on without: --opts pretrained none"


def load_pretrained(
    backbone: Backbone,
    source: str | None = "imagenet",
    folder: str | Path = FOLDER,
    network: Network | None = None,
) -> str:
    """Load ImageNet weights into ``backbone`` and return, in words, where they came from.

    Args:
        backbone: the backbone.
        source: ``none``, ``imagenet`` (the default), or the path of a file. A checkpoint of a network that
            was trained here, on any data set, gives the weights of its backbone.
        folder: folder of the published files.
        network: network whose other parts may be initialised with these weights too.

    Raises:
        CheckpointError: a file is missing, cannot be read, or does not fit the network.
    """
    source = source or "imagenet"
    if source == "none":
        return RANDOM
    origin, weights = _public_weights(backbone, Path(folder)) if source == "imagenet" else _read(source)
    plain = {name.removeprefix("module."): value for name, value in weights.items()}
    try:
        load_strict(backbone, backbone.with_own_channels(_of_backbone(backbone, plain)))
    except ValueError as failure:
        raise CheckpointError(
            f"{origin}: not the weights of this {backbone.spec.name} ({failure}); mind its stem and width, "
            f"{_WITHOUT}"
        ) from failure
    if network is not None:
        network.initialise(weights)
    return origin


def _of_backbone(backbone: Backbone, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the backbone's entries of its public weights or of a checkpoint that was trained here."""
    theirs = {name.removeprefix(_OURS): value for name, value in weights.items() if name.startswith(_OURS)}
    if not theirs:
        return backbone.from_public(weights)
    # A backbone without its last stage needs only a part of another one's weights.
    return {name: theirs[name] for name in backbone.state_dict() if name in theirs}


def _read(path: str | Path) -> tuple[str, dict[str, Tensor]]:
    return str(path), load_weights(path)


def _public_weights(backbone: Backbone, folder: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the origin of the backbone's public weights in words, and their entries."""
    name, weights = backbone.spec.name, backbone.spec.weights
    path = None if weights.file is None else folder / weights.file
    if path is not None and path.is_file():
        return _read(path)
    if weights.torchvision is not None:
        return f"torchvision's {weights.torchvision}", _from_torchvision(weights.torchvision, path)
    missing = f"no ImageNet weights are found for this {name}"
    if path is not None:
        missing = f"{path}: the ImageNet weights of this {name} are missing"
    raise CheckpointError(f"{missing}; {weights.remedy}, {_WITHOUT}")


def _from_torchvision(name: str, path: Path | None) -> dict[str, Tensor]:
    """Download torchvision's first ImageNet weights, which are those that published methods use.

    Args:
        name: name of the network in torchvision.
        path: where a user can put the file, for messages.
    """
    try:
        from torchvision.models import get_model_weights
    except (ImportError, RuntimeError) as failure:  # its wheels do not work with every version of torch
        raise CheckpointError(
            f"{name}: its ImageNet weights need torchvision, which cannot be imported; install it, {_WITHOUT}"
        ) from failure
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
    except OSError as failure:  # includes urllib's errors
        place = f"put it at {path}" if path else "name it by --opts pretrained PATH"
        raise CheckpointError(
            f"{name}: its ImageNet weights cannot be downloaded ({failure}); fetch {weights.url} elsewhere "
            f"(its SHA-256 begins with the digits in its name) and {place}, {_WITHOUT}"
        ) from failure
