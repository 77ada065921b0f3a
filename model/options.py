"""Checks of options: names, types and ranges, as given by the annotations of a dataclass or a class.

``channels: Channels = 256`` declares a whole number within the bounds of ``Channels``.
"""

from __future__ import annotations

import difflib
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both of them inclusive."""

    least: float
    most: float


Channels = Annotated[int, Between(1, 4096)]
Hidden = Annotated[int, Between(0, 4096)]
"""Channels of a layer that may be omitted; 0 omits it."""
Count = Annotated[int, Between(1, 100)]
CountOrNone = Annotated[int, Between(0, 100)]
Share = Annotated[float, Between(0, 1)]
Dropout = Annotated[float, Between(0, 0.99)]
Cosine = Annotated[float, Between(-1, 1)]
Weight = Annotated[float, Between(0, 1e6)]
"""The weight of a loss."""
Factor = Annotated[float, Between(1e-6, 1e6)]
Scales = tuple[Annotated[float, Between(1e-3, 1000)], ...]
Dilation = Annotated[int, Between(1, 64)]
Stride = Annotated[int, Between(0, 2)]
Width = Annotated[int, Between(1, 1024)]
Inputs = Annotated[int, Between(1, 64)]
Seed = Annotated[int, Between(0, 2**32 - 1)]

_MOST_VALUES = 16


class OptionError(ValueError):
    """An invalid option, or an invalid part of a model.

    Attributes:
        key: its name in the configuration of a model, such as ``backbone`` or ``options.channels``.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def known_part(key: str, kind: str, name: str, registry: Mapping[str, Any]) -> Any:
    """Return the entry ``name`` of ``registry``.

    Raises:
        OptionError: there is no such entry; the message lists all entries.
    """
    if name not in registry:
        raise OptionError(key, f"there is no {kind} {name!r}; known: {', '.join(sorted(registry))}")
    return registry[name]


def build_options(name: str, options: type, values: Mapping[str, object], group: str = "options") -> Any:
    """Build the options of a method, an adaptation or an ensemble.

    Args:
        name: name of the method.
        options: the dataclass of its options.
        values: option -> value, for those that differ from the defaults; lists are accepted for tuples.
        group: the key of a model's configuration that holds them.

    Raises:
        ValueError: an unknown option, or an invalid value.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    return options(**_checked(group, name, hints, values))


def checked_arguments(name: str, network: Callable[..., Any], values: Mapping[str, object]) -> dict[str, Any]:
    """Check the keyword arguments of a backbone, and return them with lists as tuples.

    Args:
        name: name of the backbone.
        network: its class, or a partial call of it.
        values: argument -> value.

    Raises:
        ValueError: an unknown argument, or an invalid value.
    """
    hints = typing.get_type_hints(getattr(network, "func", network).__init__, include_extras=True)
    parameters = inspect.signature(network).parameters.values()
    keywords = {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    return _checked("backbone_options", name, keywords, values)


def _checked(group: str, name: str, hints: Mapping[str, Any], values: Mapping[str, object]) -> dict[str, Any]:
    checked = {}
    for key, value in values.items():
        place = f"{group}.{key}"
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints) or 'none'}"
            raise OptionError(place, f"{name} has no option {key!r}; {hint}")
        value = tuple(value) if isinstance(value, list) else value
        requirement = _violated(value, hints[key])
        if requirement:
            shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:76]} ..."
            raise OptionError(place, f"option {key!r} of {name} must be {requirement}, got {shown}")
        checked[key] = value
    return checked


def _violated(value: object, hint: Any) -> str | None:
    """Return the requirement of a type hint that ``value`` does not meet; None if it meets all."""
    bounds = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Between)]
    kind = typing.get_origin(hint)
    if kind is Annotated:
        return _violated(value, typing.get_args(hint)[0]) or _violated_bound(value, bounds)
    parts = typing.get_args(hint)
    if kind in (UnionType, typing.Union):
        requirements = [_violated(value, part) for part in parts]
        return None if None in requirements else " or ".join(filter(None, requirements))
    if kind is typing.Literal:
        fits = any(type(value) is type(part) and value == part for part in parts)
        return None if fits else " or ".join(map(repr, parts))
    if kind is tuple:
        return _violated_by_tuple(value, parts)
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return None if fits else "a finite number"
    if hint is int:
        return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    words = {bool: "True or False", str: "text", NoneType: "None"}
    return None if isinstance(value, hint) else words.get(hint, hint.__name__)


def _violated_by_tuple(value: object, parts: tuple[Any, ...]) -> str | None:
    any_length = parts[-1] is Ellipsis
    if not isinstance(value, tuple) or not value or (not any_length and len(value) != len(parts)):
        return "a list in brackets" if any_length else f"a list of {len(parts)} values"
    if len(value) > _MOST_VALUES:
        return f"a list of at most {_MOST_VALUES} values"
    hints = [parts[0]] * len(value) if any_length else parts
    requirements = [_violated(*pair) for pair in zip(value, hints, strict=True)]
    requirement = next(filter(None, requirements), None)
    return None if requirement is None else f"a list of values each of which is {requirement}"


def _violated_bound(value: Any, bounds: list[Between]) -> str | None:
    for limit in bounds:
        if value < limit.least:
            return f"at least {limit.least:g}"
        if value > limit.most:
            return f"at most {limit.most:g}"
    return None
