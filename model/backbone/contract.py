"""The base class of backbones, and the record by which a backbone describes itself.

Methods read features by role: ``low`` (one feature that describes the scene), ``middle`` (two features for
dense comparison, the shallower one first), ``high`` (one feature with semantic information) and ``signed``
(the deepest feature before its last activation, for cosines).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewseg.model.pixels import PIXELS

ROLES = ("low", "middle", "high", "signed")
LEVELS = "levels"
"""Name for the outputs of all blocks of ``BackboneSpec.levels``."""

_RGB = 3
_UNUSED = ("fc.", "classifier.", "avgpool.")
"""Prefixes of entries of public weights that belong to the image classifier."""


@dataclass(frozen=True)
class Feature:
    """A map [B,channels,h,w] whose positions lie ``stride`` pixels apart."""

    channels: int
    stride: int


@dataclass(frozen=True)
class PublicWeights:
    """Sources of public weights of a network: first a file, then torchvision.

    Attributes:
        file: name of a file below ``initmodel/``; None if no such file is published.
        torchvision: name of the network in torchvision; None if it has no weights.
        remedy: what the user can do if neither source has weights, for an error message.
    """

    file: str | None = None
    torchvision: str | None = None
    remedy: str = "name a file of yours by --opts pretrained PATH"


@dataclass(frozen=True)
class BackboneSpec:
    """The description that a backbone gives of itself.

    Attributes:
        name: name of the network, for messages.
        features: all features by name, in the order in which they are computed.
        roles: role -> names of its features; a network that ends early may have no ``high``.
        levels: outputs of the blocks at three levels, shallow to deep, for methods that compare all of them.
        high_from: the feature from which ``run_stage`` computes ``high``; None if it cannot.
        side_multiple: heights and widths of images must be multiples of it.
        pixels: the scale of pixel values that the weights need, a name of ``model.pixels``.
        weights: sources of public weights.
    """

    name: str
    features: Mapping[str, Feature]
    roles: Mapping[str, tuple[str, ...]]
    levels: tuple[tuple[str, ...], ...]
    high_from: str | None = None
    side_multiple: int = 1
    pixels: str = "normalised"
    weights: PublicWeights = field(default_factory=PublicWeights)

    def names(self, names_or_roles: Iterable[str]) -> tuple[str, ...]:
        """Return the names of features that are given by name or by role.

        Raises:
            ValueError: there is no such feature.
        """
        groups = {**self.roles, LEVELS: tuple(name for level in self.levels for name in level)}
        names = [name for item in names_or_roles for name in groups.get(item, (item,))]
        for name in names:
            if name not in self.features:
                raise ValueError(f"{self.name} has no feature {name!r}; {self.name} ends with {self.deepest}")
        return tuple(names)

    def channels(self, name: str) -> int:
        """Return the channels of a feature, or of all features of a role together."""
        return sum(self.features[feature].channels for feature in self.names((name,)))

    def stride(self, name: str) -> int:
        """Return the stride in pixels of a feature, or of the last feature of a role."""
        return self.features[self.names((name,))[-1]].stride

    @property
    def deepest(self) -> str:
        """The name of the last feature."""
        return list(self.features)[-1]

    def by_role(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``features``, and those that have a role also under its name: ``high``, ``middle.0``."""
        named = dict(features)
        for role, names in self.roles.items():
            for index, name in enumerate(names):
                if name in features:
                    named[role if len(names) == 1 else f"{role}.{index}"] = features[name]
        return named

    def refused_side(self, side: int) -> str | None:
        """Return why images cannot have sides of ``side`` pixels, and the nearest ones; None if they can."""
        multiple = self.side_multiple
        if side % multiple == 0:
            return None
        below = side // multiple * multiple
        nearest = f"{below} or {below + multiple}" if below else f"{multiple}"
        return f"{self.name} needs sides that are multiples of {multiple} pixels, not {side}; take {nearest}"


class Backbone(nn.Module):
    """A network that turns images into features, by name or by role.

    Attributes:
        family: name under which methods list the options of their published backbones.
        spec: its description.
    """

    family: ClassVar[str]
    spec: BackboneSpec

    def forward(self, image: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Compute features of normalised images; stages behind the last of them are not run.

        Args:
            image: images [B,3,H,W].
            names: names of features or roles.

        Returns:
            Features [B,C,h,w] by name; those that have a role also under its name, see ``by_role``.

        Raises:
            ValueError: a feature does not exist, or the sides of the images are no valid multiples.
        """
        for side in image.shape[-2:]:
            if refused := self.spec.refused_side(side):
                raise ValueError(refused)
        selected = frozenset(self.spec.names(names))
        return self.spec.by_role(self.compute(PIXELS[self.spec.pixels](image), selected))

    def compute(self, image: Tensor, names: frozenset[str]) -> dict[str, Tensor]:
        """Return the named features of images that have the network's own scale of pixel values."""
        raise NotImplementedError

    def run_stage(self, name: str, x: Tensor) -> Tensor:
        """Run the one stage ``name`` on the output ``x`` of the stage before it."""
        raise NotImplementedError

    def run_stage_within(self, name: str, x: Tensor, inside: Tensor) -> Tensor:
        """Run a stage as ``run_stage`` does, if its output is only read at some positions.

        Args:
            name: the stage.
            x: the output of the stage before it, [B,C,h,w].
            inside: whether a position of that grid is read, bool [B,1,h,w].

        Returns:
            The output, which may be zero at positions that are not read.
        """
        return self.run_stage(name, x)

    @classmethod
    def may_be_in(cls, entries: Iterable[str], *arguments: Any) -> bool:
        """Return whether a checkpoint with these entries may contain a network built with ``arguments``."""
        return True

    def layer_names(self, source: str) -> dict[str, str]:
        """Return prefix of an entry -> its prefix in files of ``source``, ``torchvision`` or ``caffe``."""
        return {}

    def from_public(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename entries of public weights to this network's names, and drop the image classifier."""
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
        """Return ``state`` with this network's filters of further input channels added, if it lacks them."""
        name, convolution = self.first_convolution()
        first, own = f"{name}.weight", convolution.weight.detach()
        filters = state.get(first)
        if filters is None or filters.ndim != own.ndim or filters.shape[1] >= own.shape[1]:
            return dict(state)
        return {**state, first: torch.cat([filters, own[:, filters.shape[1] :].to(filters)], 1)}

    def on_rgb(self) -> Backbone:
        """Return this network if it reads RGB, otherwise a copy without the filters of further channels."""
        if self.inputs == _RGB:
            return self
        plain = copy.deepcopy(self)
        _, first = plain.first_convolution()
        first.weight, first.in_channels = nn.Parameter(first.weight[:, :_RGB].detach()), _RGB
        return plain


def renamed(
    entries: Mapping[str, Tensor], prefixes: Mapping[str, str], unused: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Change the prefixes of entries; drop those of classifiers and those that begin with ``unused``."""
    kept = {}
    for name, value in entries.items():
        if not name.startswith((*_UNUSED, *unused)):
            prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
            kept[prefixes.get(prefix, "") + name.removeprefix(prefix)] = value
    return kept
