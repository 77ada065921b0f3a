"""What torchvision calls the entries of our backbones."""

from __future__ import annotations

from fewseg.model.backbone.vgg import VGG16
from fewseg.model.contract import Backbone


def torchvision_names(backbone: Backbone) -> dict[str, str]:
    """Return prefix of an entry -> its prefix in torchvision, where they differ.

    Args:
        backbone: a ResNet with the standard stem, or a VGG16 that has all its poolings.
    """
    if not isinstance(backbone, VGG16):
        return {"layer0.0": "conv1", "layer0.1": "bn1"}
    layers = [f"{s}.{number}" for s in backbone.stages for number in range(len(backbone.get_submodule(s)))]
    return {layer: f"features.{number}" for number, layer in enumerate(layers)}
