"""Checking options: names, types and ranges, as a dataclass or the arguments of a class state them.

``channels: Channels = 256`` states a whole number between the bounds that ``Channels`` has.
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
    """Bounds of a number, both allowed."""

    least: float
    most: float


Channels = Annotated[int, Between(1, 4096)]
Hidden = Annotated[int, Between(0, 4096)]
"""Channels of a layer that may be left out."""
Count = Annotated[int, Between(1, 100)]
CountOrNone = Annotated[int, Between(0, 100)]
Share = Annotated[float, Between(0, 1)]
Dropout = Annotated[float, Between(0, 0.99)]
Cosine = Annotated[float, Between(-1, 1)]
Weight = Annotated[float, Between(0, 1e6)]
"""Of a loss."""
Factor = Annotated[float, Between(1e-6, 1e6)]
Scales = tuple[Annotated[float, Between(1e-3, 1000)], ...]
Dilation = Annotated[int, Between(1, 64)]
Stride = Annotated[int, Between(0, 2)]
Width = Annotated[int, Between(1, 1024)]
Inputs = Annotated[int, Between(1, 64)]
Seed = Annotated[int, Between(0, 2**32 - 1)]

_MOST_VALUES = 16


class OptionError(ValueError):
    """An option, or a part of a model, that cannot be.

    Attributes:
        key: its name, as the configuration of a model has it: ``backbone``, ``options.channels``.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def known_part(key: str, kind: str, name: str, registry: Mapping[str, Any]) -> Any:
    """Return what ``registry`` has under ``name``.

    Raises:
        OptionError: nothing; names all that there is.
    """
    if name not in registry:
        raise OptionError(key, f"there is no {kind} {name!r}; known: {', '.join(sorted(registry))}")
    return registry[name]


def build_options(name: str, options: type, given: Mapping[str, object]) -> Any:
    """Build the options of a method or an adaptation.

    Args:
        name: of the method.
        options: the dataclass of its options.
        given: those that differ from the defaults; lists may stand for tuples.

    Raises:
        ValueError: an unknown option, or a value that it cannot have.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    return options(**_checked("options", name, hints, given))


def checked_arguments(name: str, network: Callable[..., Any], given: Mapping[str, object]) -> dict[str, Any]:
    """Return the keyword arguments of a backbone, lists as tuples.

    Args:
        name: of the backbone.
        network: its class, or a partial call of it.
        given: arguments by name.

    Raises:
        ValueError: an unknown argument, or a value that it cannot have.
    """
    hints = typing.get_type_hints(getattr(network, "func", network).__init__, include_extras=True)
    parameters = inspect.signature(network).parameters.values()
    own = {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
    return _checked("backbone_options", name, own, given)


def _checked(group: str, name: str, hints: Mapping[str, Any], given: Mapping[str, object]) -> dict[str, Any]:
    checked = {}
    for key, value in given.items():
        place = f"{group}.{key}"
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(hints) or 'none'}"
            raise OptionError(place, f"{name} has no option {key!r}; {hint}")
        value = tuple(value) if isinstance(value, list) else value
        wrong = _complaint(value, hints[key])
        if wrong:
            shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:76]} ..."
            raise OptionError(place, f"option {key!r} of {name} must be {wrong}, got {shown}")
        checked[key] = value
    return checked


def _complaint(value: object, wanted: Any) -> str | None:
    """Return what ``value`` should have been instead, None where it is right."""
    bounds = [extra for extra in getattr(wanted, "__metadata__", ()) if isinstance(extra, Between)]
    kind = typing.get_origin(wanted)
    if kind is Annotated:
        return _complaint(value, typing.get_args(wanted)[0]) or _beyond(value, bounds)
    parts = typing.get_args(wanted)
    if kind in (UnionType, typing.Union):
        complaints = [_complaint(value, part) for part in parts]
        return None if None in complaints else " or ".join(filter(None, complaints))
    if kind is typing.Literal:
        fits = any(type(value) is type(part) and value == part for part in parts)
        return None if fits else " or ".join(map(repr, parts))
    if kind is tuple:
        return _tuple_complaint(value, parts)
    if wanted is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return None if fits else "a finite number"
    if wanted is int:
        return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    words = {bool: "True or False", str: "text", NoneType: "None"}
    return None if isinstance(value, wanted) else words.get(wanted, wanted.__name__)


def _tuple_complaint(value: object, parts: tuple[Any, ...]) -> str | None:
    any_length = parts[-1] is Ellipsis
    if not isinstance(value, tuple) or not value or (not any_length and len(value) != len(parts)):
        return "a list in brackets" if any_length else f"a list of {len(parts)} values"
    if len(value) > _MOST_VALUES:
        return f"a list of at most {_MOST_VALUES} values"
    wanted = [parts[0]] * len(value) if any_length else parts
    complaints = [_complaint(*pair) for pair in zip(value, wanted, strict=True)]
    wrong = next(filter(None, complaints), None)
    return None if wrong is None else f"a list of values each of which is {wrong}"


def _beyond(value: Any, bounds: list[Between]) -> str | None:
    for limit in bounds:
        if value < limit.least:
            return f"at least {limit.least:g}"
        if value > limit.most:
            return f"at most {limit.most:g}"
    return None
