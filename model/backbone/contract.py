"""What a backbone offers, and the record by which it describes itself.

Methods ask for features by role: ``low`` (one feature that shows what a scene looks like), ``middle`` (two
features that decoders compare, the shallower one first), ``high`` (one feature that knows classes) and
``signed`` (the deepest feature before its last activation, for cosines).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from fewseg.model.pixels import PIXELS

ROLES = ("low", "middle", "high", "signed")
LEVELS = "levels"
"""Stands for the outputs of all blocks of ``BackboneSpec.levels``."""

_RGB = 3
_UNUSED = ("fc.", "classifier.", "avgpool.")
"""Entries of public weights that only classify images."""


@dataclass(frozen=True)
class Feature:
    """A map [B,channels,h,w] whose positions lie ``stride`` pixels apart."""

    channels: int
    stride: int


@dataclass(frozen=True)
class PublicWeights:
    """Where public weights of a network are found: a file, else torchvision.

    Attributes:
        file: name of a file below ``initmodel/``, None where no such file is published.
        torchvision: name of the network there, None where it has no weights of it.
        remedy: what the user can do where neither gives any.
    """

    file: str | None = None
    torchvision: str | None = None
    remedy: str = "name a file of yours by --opts pretrained PATH"


@dataclass(frozen=True)
class BackboneSpec:
    """How a backbone describes itself.

    Attributes:
        name: of the network, for messages.
        features: all features by name, in the order in which they are computed.
        roles: role -> names of its features; a network that ends early may have no ``high``.
        levels: outputs of the blocks at three levels, shallow to deep, for methods that compare them all.
        high_from: the feature from which ``run_stage`` computes ``high`` alone; None where it cannot.
        side_multiple: heights and widths of images must be multiples of it.
        pixels: the scale of pixels that the weights want, a name of ``model.pixels``.
        weights: where public weights come from.
    """

    name: str
    features: Mapping[str, Feature]
    roles: Mapping[str, tuple[str, ...]]
    levels: tuple[tuple[str, ...], ...]
    high_from: str | None = None
    side_multiple: int = 1
    pixels: str = "normalised"
    weights: PublicWeights = field(default_factory=PublicWeights)

    def names(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """Return the features that are meant by names of features and of roles.

        Raises:
            ValueError: there is no such feature.
        """
        groups = {**self.roles, LEVELS: tuple(name for level in self.levels for name in level)}
        found = [name for asked in wanted for name in groups.get(asked, (asked,))]
        for name in found:
            if name not in self.features:
                raise ValueError(f"{self.name} has no feature {name!r}; {self.name} ends with {self.deepest}")
        return tuple(found)

    def channels(self, name: str) -> int:
        """Return the channels of a feature, or of all features of a role together."""
        return sum(self.features[feature].channels for feature in self.names((name,)))

    def stride(self, name: str) -> int:
        """Return how many pixels lie between two positions of a feature, or of the last one of a role."""
        return self.features[self.names((name,))[-1]].stride

    @property
    def deepest(self) -> str:
        """The last feature."""
        return list(self.features)[-1]

    def by_role(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``features``, those that have a role under its name too: ``high``, ``middle.0``."""
        named = dict(features)
        for role, names in self.roles.items():
            for number, name in enumerate(names):
                if name in features:
                    named[role if len(names) == 1 else f"{role}.{number}"] = features[name]
        return named

    def refused_side(self, side: int) -> str | None:
        """Say why images cannot have ``side`` pixels, and which sides come nearest; None where they can."""
        multiple = self.side_multiple
        if side % multiple == 0:
            return None
        below = side // multiple * multiple
        nearest = f"{below} or {below + multiple}" if below else f"{multiple}"
        return f"{self.name} wants sides of a multiple of {multiple} pixels, not {side}; take {nearest}"


class Backbone(nn.Module):
    """A network that turns images into features, by name or by role.

    Attributes:
        family: under which methods keep the options of their published networks.
        spec: how it describes itself.
    """

    family: ClassVar[str]
    spec: BackboneSpec

    def forward(self, image: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return features of normalised images [B,3,H,W], and run no further than they need.

        Args:
            image: the images.
            names: of features or roles.

        Returns:
            Feature [B,C,h,w] by name; those that have a role stand under its name too, as ``by_role`` says.

        Raises:
            ValueError: a feature that does not exist, or sides that the network cannot have.
        """
        for side in image.shape[-2:]:
            if refused := self.spec.refused_side(side):
                raise ValueError(refused)
        wanted = frozenset(self.spec.names(names))
        return self.spec.by_role(self.compute(PIXELS[self.spec.pixels](image), wanted))

    def compute(self, image: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return the features of these names of images on the network's own scale of pixels."""
        raise NotImplementedError

    def run_stage(self, name: str, x: Tensor) -> Tensor:
        """Run the one stage ``name`` on the output ``x`` of the stage before it."""
        raise NotImplementedError

    def may_be_in(self, entries: Iterable[str]) -> bool:
        """Tell whether a checkpoint with these entries may hold a network of this kind and depth."""
        return True

    def layer_names(self, source: str) -> dict[str, str]:
        """Return prefix of an entry -> its prefix in files of ``source``, ``torchvision`` or ``caffe``."""
        return {}

    def from_public(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give entries of public weights this network's names, and leave out what classifies images."""
        names = {f"{theirs}.": f"{own}." for own, theirs in self.layer_names("torchvision").items()}
        return renamed(entries, names)

    def first_convolution(self) -> tuple[str, nn.Conv2d]:
        """Return the layer that reads the image, and its name."""
        return next((name, m) for name, m in self.named_modules() if isinstance(m, nn.Conv2d))

    @property
    def inputs(self) -> int:
        """Channels of the image."""
        return self.first_convolution()[1].in_channels

    def with_own_channels(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``state`` with this network's filters of further input channels where it lacks them."""
        name, convolution = self.first_convolution()
        first, own = f"{name}.weight", convolution.weight.detach()
        given = state.get(first)
        if given is None or given.ndim != own.ndim or given.shape[1] >= own.shape[1]:
            return dict(state)
        return {**state, first: torch.cat([given, own[:, given.shape[1] :].to(given)], 1)}

    def on_rgb(self) -> Backbone:
        """Return the same network for RGB alone: itself, or a copy without the further channels' filters."""
        if self.inputs == _RGB:
            return self
        plain = copy.deepcopy(self)
        _, first = plain.first_convolution()
        first.weight, first.in_channels = nn.Parameter(first.weight[:, :_RGB].detach()), _RGB
        return plain


def renamed(
    entries: Mapping[str, Tensor], prefixes: Mapping[str, str], unused: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Change the prefixes of entries; leave out those of classifiers and those that begin with ``unused``."""
    kept = {}
    for name, value in entries.items():
        if not name.startswith((*_UNUSED, *unused)):
            prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
            kept[prefixes.get(prefix, "") + name.removeprefix(prefix)] = value
    return kept
