"""Backbone weights learnt on ImageNet: found by name, renamed to ours, loaded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from model.interface import Backbone
from model.published import load_strict
from util.checkpoint import load_weights
from util.errors import CheckpointError

FOLDER = Path("initmodel")
PUBLISHED_FILES = {
    "resnet50": "resnet50_v2.pth",
    "resnet101": "resnet101_v2.pth",
    "resnet152": "resnet152_v2.pth",
    "vgg16": "vgg16_bn.pth",
}
"""Backbone -> the file that published codes load: deep-stem ResNets, torchvision's VGG16 with BatchNorm."""

TORCHVISION_NAMES = {"vgg16": "vgg16_bn"}

_WITHOUT = "or go on without: --opts pretrained none"
_CLASSIFIER = ("fc.", "classifier.", "avgpool.")
_DEEP_STEM = {
    **{"conv1.": "layer0.0.", "bn1.": "layer0.1.", "conv2.": "layer0.3.", "bn2.": "layer0.4."},
    **{"conv3.": "layer0.6.", "bn3.": "layer0.7."},
}
_VGG_CUTS = (0, 7, 14, 24, 34)
"""Index in ``features`` of the first layer of every group of VGG16 with BatchNorm."""


def load_pretrained(
    backbone: Backbone, name: str, source: str | None = "imagenet", folder: str | Path = FOLDER
) -> str:
    """Give ``backbone`` its ImageNet weights and return, in words, where they came from.

    Args:
        backbone: the network.
        name: of the network, ``resnet50``.
        source: ``none``, ``imagenet`` (also if unset), or the path of a file.
        folder: where the published files lie.

    Raises:
        CheckpointError: a file is missing, cannot be read, or does not fit the network.
    """
    source = source or "imagenet"
    if source == "none":
        return "random weights"
    if source != "imagenet":
        origin, weights = source, load_weights(source)
    elif (published := _published_file(backbone, name, Path(folder))) is not None:
        origin, weights = str(published), load_weights(published)
    else:
        origin, weights = f"torchvision's {name}", _from_torchvision(name, Path(folder))
    try:
        load_strict(backbone, to_backbone_names(weights))
    except ValueError as failure:
        raise CheckpointError(
            f"{origin}: not the weights of this {name} ({failure}); mind its stem and width, {_WITHOUT}"
        ) from failure
    return origin


def to_backbone_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published ImageNet weights to a backbone's names and leave out the classifier."""
    plain = {name.removeprefix("module."): value for name, value in weights.items()}
    return {_renamed(name): value for name, value in plain.items() if not name.startswith(_CLASSIFIER)}


def _renamed(name: str) -> str:
    for published, ours in _DEEP_STEM.items():  # the standard stem's conv1 and bn1 go to the same places
        if name.startswith(published):
            return ours + name.removeprefix(published)
    if name.startswith("features."):
        index, _, leaf = name.removeprefix("features.").partition(".")
        group = max(g for g, first in enumerate(_VGG_CUTS) if first <= int(index))
        return f"layer{group}.{int(index) - _VGG_CUTS[group]}.{leaf}"
    return name


def _published_file(backbone: Backbone, name: str, folder: Path) -> Path | None:
    """Return the published file of a deep-stem ResNet or VGG; None where torchvision has the weights."""
    if name.startswith("resnet") and not _has_deep_stem(backbone):
        return None
    if name not in PUBLISHED_FILES:
        raise CheckpointError(
            f"there are no ImageNet weights of a deep-stem {name}; take torchvision's with "
            f"--opts Method.backbone_options.stem standard, {_WITHOUT}"
        )
    path = folder / PUBLISHED_FILES[name]
    if path.is_file():
        return path
    if name in TORCHVISION_NAMES:
        return None
    raise CheckpointError(
        f"{path}: the ImageNet weights of the deep-stem {name} are missing; put there the file of the PSPNet "
        "project (github.com/hszhao/semseg, 'initmodel') that the few-shot codes link to, take torchvision's "
        f"weights with --opts Method.backbone_options.stem standard, {_WITHOUT}"
    )


def _has_deep_stem(backbone: Backbone) -> bool:
    return "layer0.3.weight" in backbone.state_dict()


def _from_torchvision(name: str, folder: Path) -> dict[str, Tensor]:
    """Fetch torchvision's first ImageNet weights, which are the ones that this field has used."""
    try:
        from torchvision.models import get_model_weights
    except (ImportError, RuntimeError) as failure:  # its wheels do not import beside every torch
        raise CheckpointError(
            f"{name}: its ImageNet weights need torchvision, which cannot be imported; install it, {_WITHOUT}"
        ) from failure
    try:
        weights = get_model_weights(TORCHVISION_NAMES.get(name, name))["IMAGENET1K_V1"]
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except OSError as failure:  # urllib's errors among them
        expected = folder / PUBLISHED_FILES[name] if name in TORCHVISION_NAMES else None
        place = f"put the file at {expected}" if expected else "name the file by --opts pretrained PATH"
        raise CheckpointError(
            f"{name}: its ImageNet weights cannot be downloaded ({failure}); {place}, {_WITHOUT}"
        ) from failure
