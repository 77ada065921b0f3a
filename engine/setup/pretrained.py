"""Backbone weights learnt on ImageNet: found where the backbone says, renamed to ours, loaded strictly."""

from __future__ import annotations

import sys
from pathlib import Path

from torch import Tensor

from fewseg.model.backbone.contract import Backbone
from fewseg.model.checkpoint.published import load_strict
from fewseg.model.contract import Network
from fewseg.util.checkpoint import load_weights
from fewseg.util.errors import CheckpointError

FOLDER = Path("initmodel")
RANDOM = "random weights"
"""How ``load_pretrained`` says that it loaded none."""

_WITHOUT = "or go on without: --opts pretrained none"


def load_pretrained(
    backbone: Backbone,
    source: str | None = "imagenet",
    folder: str | Path = FOLDER,
    network: Network | None = None,
) -> str:
    """Give ``backbone`` its ImageNet weights and return, in words, where they came from.

    Args:
        backbone: the network.
        source: ``none``, ``imagenet`` (also if unset), or the path of a file.
        folder: where the published files lie.
        network: whose other parts may start from these weights too.

    Raises:
        CheckpointError: a file is missing, cannot be read, or does not fit the network.
    """
    source = source or "imagenet"
    if source == "none":
        return RANDOM
    origin, weights = _public_weights(backbone, Path(folder)) if source == "imagenet" else _read(source)
    plain = {name.removeprefix("module."): value for name, value in weights.items()}
    try:
        load_strict(backbone, backbone.with_own_channels(backbone.from_public(plain)))
    except ValueError as failure:
        raise CheckpointError(
            f"{origin}: not the weights of this {backbone.spec.name} ({failure}); mind its stem and width, "
            f"{_WITHOUT}"
        ) from failure
    if network is not None:
        network.initialise(weights)
    return origin


def _read(path: str | Path) -> tuple[str, dict[str, Tensor]]:
    return str(path), load_weights(path)


def _public_weights(backbone: Backbone, folder: Path) -> tuple[str, dict[str, Tensor]]:
    """Return where public weights of the backbone came from, and their entries."""
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
    """Fetch torchvision's first ImageNet weights, which are the ones that this field has used.

    Args:
        name: of the network there.
        path: where they are looked for first.
    """
    try:
        from torchvision.models import get_model_weights
    except (ImportError, RuntimeError) as failure:  # its wheels do not import beside every torch
        raise CheckpointError(
            f"{name}: its ImageNet weights need torchvision, which cannot be imported; install it, {_WITHOUT}"
        ) from failure
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
    except OSError as failure:  # urllib's errors among them
        place = f"put it at {path}" if path else "name it by --opts pretrained PATH"
        raise CheckpointError(
            f"{name}: its ImageNet weights cannot be downloaded ({failure}); fetch {weights.url} elsewhere "
            f"(its SHA-256 begins with the digits in its name) and {place}, {_WITHOUT}"
        ) from failure
