"""Backbone weights learnt on ImageNet: found by name, renamed to ours, loaded strictly."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fewseg.model.backbone.channels import with_own_channels
from fewseg.model.backbone.resnet import ResNet
from fewseg.model.backbone.torchvision_names import torchvision_names
from fewseg.model.checkpoint.published import load_strict
from fewseg.model.contract import Backbone, Network
from fewseg.util.checkpoint import load_weights
from fewseg.util.errors import CheckpointError

FOLDER = Path("initmodel")
PUBLISHED_FILES = {
    "resnet50": "resnet50_v2.pth",
    "resnet101": "resnet101_v2.pth",
    "resnet152": "resnet152_v2.pth",
    "vgg16_bn": "vgg16_bn.pth",
    "vgg16": "vgg16-397923af.pth",
}
"""Network -> the file that published codes load: deep-stem ResNets, torchvision's VGG16 with and without
BatchNorm."""

_PUBLISHED_AT = "https://drive.google.com/open?id=15wx9vOM0euyizq-M1uINgN0_wjVRf9J3"
"""The folder that github.com/hszhao/semseg, where the deep-stem weights come from, shares its files in."""

_MEGABYTES = {"resnet50": 103, "resnet101": 179, "resnet152": 242}
"""What the tensors of a deep-stem ResNet take. No published checksum of its file is known."""

_TORCHVISION = "--opts Method.backbone_options.stem standard (in stage 1 too, where a base learner is used)"
RANDOM = "random weights"
"""How ``load_pretrained`` says that it loaded none."""

_WITHOUT = "or go on without: --opts pretrained none"
_CLASSIFIER = ("fc.", "classifier.", "avgpool.")
_DEEP_STEM = {
    **{"conv1.": "layer0.0.", "bn1.": "layer0.1.", "conv2.": "layer0.3.", "bn2.": "layer0.4."},
    **{"conv3.": "layer0.6.", "bn3.": "layer0.7."},
}

_NESTED_STEM = {"conv1.": "layer0.", "bn1.": "layer0.7."}
"""The same stem as other files name it."""


def load_pretrained(
    backbone: Backbone,
    name: str,
    source: str | None = "imagenet",
    folder: str | Path = FOLDER,
    network: Network | None = None,
) -> str:
    """Give ``backbone`` its ImageNet weights and return, in words, where they came from.

    Args:
        backbone: the network.
        name: of the network, ``resnet50``.
        source: ``none``, ``imagenet`` (also if unset), or the path of a file.
        folder: where the published files lie.
        network: whose other parts may start from these weights too.

    Raises:
        CheckpointError: a file is missing, cannot be read, or does not fit the network.
    """
    source = source or "imagenet"
    if source == "none":
        return RANDOM
    if name.startswith("vgg") and _has_batch_norm(backbone):
        name += "_bn"
    if source != "imagenet":
        origin, weights = source, load_weights(source)
    elif (published := _published_file(backbone, name, Path(folder))) is not None:
        origin, weights = str(published), load_weights(published)
    else:
        origin, weights = f"torchvision's {name}", _from_torchvision(name, Path(folder))
    try:
        load_strict(backbone, with_own_channels(to_backbone_names(weights, backbone), backbone))
    except ValueError as failure:
        raise CheckpointError(
            f"{origin}: not the weights of this {name} ({failure}); mind its stem and width, {_WITHOUT}"
        ) from failure
    if network is not None:
        network.initialise(weights)
    return origin


def to_backbone_names(weights: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Rename published ImageNet weights to a backbone's names and leave out what it does not have."""
    names = {f"{theirs}.": f"{ours}." for ours, theirs in torchvision_names(backbone).items()}
    plain = {name.removeprefix("module."): value for name, value in weights.items()}
    if _has_deep_stem(backbone):
        names = _NESTED_STEM if "conv1.0.weight" in plain else _DEEP_STEM
    unused = _CLASSIFIER if "layer4" in backbone.stages else (*_CLASSIFIER, "layer4.")
    return {_renamed(name, names): value for name, value in plain.items() if not name.startswith(unused)}


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for published, ours in prefixes.items():
        if name.startswith(published):
            return ours + name.removeprefix(published)
    return name


def _published_file(backbone: Backbone, name: str, folder: Path) -> Path | None:
    """Return the published file of a deep-stem ResNet or VGG; None where torchvision has the weights."""
    if name.startswith("resnet") and not _has_deep_stem(backbone):
        return None
    if name not in PUBLISHED_FILES:
        raise CheckpointError(
            f"there are no ImageNet weights of a deep-stem {name}; take torchvision's with "
            f"{_TORCHVISION}, {_WITHOUT}"
        )
    path = folder / PUBLISHED_FILES[name]
    if path.is_file():
        return path
    if name.startswith("vgg"):
        return None
    raise CheckpointError(
        f"{path}: the ImageNet weights of the deep-stem {name} are missing; download initmodel/{path.name} "
        f"({_MEGABYTES[name]} MB; no checksum is known) from {_PUBLISHED_AT} and put it there, take "
        f"torchvision's weights instead: {_TORCHVISION}, {_WITHOUT}"
    )


def _has_batch_norm(backbone: Backbone) -> bool:
    return any(name.endswith("running_mean") for name in backbone.state_dict())


def _has_deep_stem(backbone: Backbone) -> bool:
    return isinstance(backbone, ResNet) and "layer0.3.weight" in backbone.state_dict()


def _from_torchvision(name: str, folder: Path) -> dict[str, Tensor]:
    """Fetch torchvision's first ImageNet weights, which are the ones that this field has used."""
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
        expected = folder / PUBLISHED_FILES[name] if name.startswith("vgg") else None
        place = f"put it at {expected}" if expected else "name it by --opts pretrained PATH"
        raise CheckpointError(
            f"{name}: its ImageNet weights cannot be downloaded ({failure}); fetch {weights.url} elsewhere "
            f"(its SHA-256 begins with the digits in its name) and {place}, {_WITHOUT}"
        ) from failure
