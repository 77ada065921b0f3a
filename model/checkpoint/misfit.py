"""Why a checkpoint does not fit a network: the entries that differ, and the most likely cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

_SHOWN = 3
_STEM = "layer0.0.weight"
"""The end of the name of the first convolution of ResNets and VGG16."""
_CLASSIFIERS = ("base_head.cls.", "head.cls.")


@dataclass(frozen=True)
class Misfit:
    """Entries in which a checkpoint and a network differ, by the network's names.

    Attributes:
        missing: entries that the checkpoint lacks.
        unexpected: entries that the network lacks.
        misshaped: entries of different shapes -> their shape in the checkpoint and in the network.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: Mapping[str, tuple[list[int], list[int]]]

    @classmethod
    def between(cls, model: nn.Module, state: Mapping[str, Tensor]) -> Misfit:
        """Compare a network with a state dict; counters of BatchNorm steps may be missing."""
        own_state = model.state_dict()
        shapes = {k: (list(state[k].shape), list(v.shape)) for k, v in own_state.items() if k in state}
        return cls(
            missing=tuple(k for k in own_state if k not in state and not k.endswith("num_batches_tracked")),
            unexpected=tuple(k for k in state if k not in own_state),
            misshaped={k: (theirs, own) for k, (theirs, own) in shapes.items() if theirs != own},
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all entries that differ."""
        return (*self.missing, *self.unexpected, *self.misshaped)

    def without(self, prefixes: tuple[str, ...]) -> Misfit:
        """Return the differences without those of entries with these prefixes."""
        return Misfit(
            tuple(name for name in self.missing if not name.startswith(prefixes)),
            tuple(name for name in self.unexpected if not name.startswith(prefixes)),
            {name: pair for name, pair in self.misshaped.items() if not name.startswith(prefixes)},
        )

    def described(self) -> str:
        """Count the differences and show the first of each kind."""
        misshaped = [f"{name} {theirs} instead of {own}" for name, (theirs, own) in self.misshaped.items()]
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("misshaped", misshaped))
        return "; ".join(f"{len(names)} {kind} ({shorten(names)})" for kind, names in kinds if names)

    def likely_cause(self) -> str | None:
        """Return the most likely cause and what to set; None if there is no obvious one."""
        stem = next((pair for name, pair in self.misshaped.items() if name.endswith(_STEM)), None)
        if stem is not None:
            return _difference_of_stems(*stem)
        if self.names and all(name.startswith(_CLASSIFIERS) for name in self.names):
            return "it was trained with another number of base classes: choose its fold and data set"
        if self._all(lambda name: "backbone." in name or name.startswith("layer")):
            return "the backbones differ: choose its own by --opts backbone NAME"
        if self.misshaped and self._all(lambda name: name.startswith("meta.")):
            return (
                "the method's options differ, such as channels: set Method.options as in the config.yaml "
                "of its training"
            )
        return None

    def _all(self, condition: Callable[[str], bool]) -> bool:
        return bool(self.names) and all(map(condition, self.names))


def _difference_of_stems(theirs: list[int], own: list[int]) -> str | None:
    if theirs[2:] != own[2:]:
        return "the backbones have different stems: set Method.backbone_options.stem deep or standard"
    if theirs[0] != own[0]:
        return (
            f"its backbone is {theirs[0]} channels wide and this one {own[0]}: "
            f"set Method.backbone_options.width {theirs[0]}"
        )
    return None


def shorten(names: tuple[str, ...] | list[str]) -> str:
    """Return the first names and the number of further ones; control characters in names are escaped."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:_SHOWN])
    return shown + (f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
