"""What the values of a config may be, and what a key changes: the vocabulary of ``schema.py``."""

from __future__ import annotations

from enum import Enum, auto
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fewseg.util.files import is_path


class Effect(Enum):
    """What a key of the config changes; it decides which runs and results have different names."""

    NAME = auto()
    """The path of a run's folder, which holds the key's value or, of a data root, its last part."""
    TRAINING = auto()
    """The weights that a training gives."""
    BOTH = auto()
    """The weights, by training or by selection, and the figures of a test of the same weights."""
    TEST = auto()
    """The figures of a test."""
    NOTHING = auto()
    """No figure: where files are written, how fast the work is, how much is shown; at most the rounding."""


METHOD_OPTION = "an option of the method that published files set by a key of its own"
"""Marks a key that is handed to the method as an option, which states its type, range and default."""


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _reduced(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in ("bfloat16", "true", "false"):
        return value.lower() != "false"
    if not isinstance(value, bool):
        raise ValueError("must be bfloat16 or False")
    return value


def _compiled(value: Any) -> Any:
    given = {"true": True, "false": False}.get(str(value).lower(), value)
    if given not in (True, False, "reduce-overhead", "max-autotune"):
        raise ValueError("must be True, False, reduce-overhead or max-autotune")
    return given


def _path(value: Any) -> Any:
    if isinstance(value, str) and not is_path(value):
        raise ValueError("must be a path, without control characters and not over-long")
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


AnyCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
"""Lets a name be written in upper or lower case."""
Unset = BeforeValidator(
    lambda value: None if isinstance(value, str) and value.lower() in ("", "none") else value
)
"""Lets a key that may be unset be switched off by ``None`` on the command line, where it is text."""
_EmptyIsNone = BeforeValidator(lambda value: None if value == "" else value)

Reduced = Annotated[bool, BeforeValidator(_reduced)]
"""Whether bfloat16 is used, which may be named instead."""
Compiled = Annotated[bool | Literal["reduce-overhead", "max-autotune"], BeforeValidator(_compiled)]
"""Whether something is compiled, or the mode of ``torch.compile``."""
Int = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Count = Annotated[Int, Field(ge=1, le=10_000)]
Epochs = Annotated[Int, Field(ge=1, le=100_000)]
Steps = Annotated[Int, Field(ge=1, le=1_000_000_000)]
Episodes = Annotated[Int, Field(ge=1, le=1_000_000)]
Fold = Annotated[Int, Field(ge=0, le=999)]
Few = Annotated[Int, Field(ge=1, le=100)]
"""A number of supports or ways: what fits into one episode."""
Positive = Annotated[Number, Field(gt=0, le=1e6)]
NotNegative = Annotated[Number, Field(ge=0, le=1e6)]
Rate = Annotated[Number, Field(gt=0, le=1000)]
Scale = Annotated[Number, Field(ge=0.05, le=20)]
Angle = Annotated[Number, Field(ge=-360, le=360)]
Share = Annotated[Number, Field(ge=0, le=1)]
Size = Annotated[Int, Field(ge=32, le=4096)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[\w./-]*$", max_length=100), AnyCase]
OptionalName = Annotated[Name | None, _EmptyIsNone]
Path = Annotated[str, BeforeValidator(_path)]
OptionalPath = Annotated[str | None, BeforeValidator(_path), _EmptyIsNone]
OneOrMore = Annotated[
    tuple[Path, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(min_length=1, max_length=100),
]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)]
Folds = Annotated[tuple[Fold, ...], Field(min_length=1, max_length=100)]
Shots = Annotated[tuple[Few, ...], Field(min_length=1, max_length=100)]
