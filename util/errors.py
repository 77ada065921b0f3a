"""Errors that a user can cause. Scripts print them as one line and leave with exit status 2."""

from __future__ import annotations

from typing import Any

_SHOWN = 80


class UserError(ValueError):
    """Something is wrong with what the user gave: one line that says what, where and what to do."""


class ConfigError(UserError):
    """A YAML file or an ``--opts`` pair."""


class DataError(UserError):
    """An image, a mask, a list or a data root."""


class CheckpointError(UserError):
    """A weight file or a snapshot."""


class ResultError(UserError):
    """A result file."""


def shortened(value: Any) -> str:
    """Return a foreign value for a message: as Python writes it, on one line, cut to what a line can hold."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def as_word(value: Any) -> str:
    """Return a foreign value for a message: a plain word or number as it is, anything odd ``shortened``."""
    text = str(value)
    return text if text.isprintable() and 0 < len(text) <= _SHOWN else shortened(value)
