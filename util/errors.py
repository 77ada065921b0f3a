"""Errors that a user can cause. Scripts print them as one line and leave with exit status 2."""

from __future__ import annotations

from typing import Any

_SHOWN = 80


class UserError(ValueError):
    """An error in the user's input: one line that says what is wrong, where, and what to do."""


class ConfigError(UserError):
    """An error in a YAML file or an ``--opts`` pair."""


class DataError(UserError):
    """An error in an image, a mask, a list or a data root."""


class CheckpointError(UserError):
    """An error in a weight file or a snapshot."""


class ResultError(UserError):
    """An error in a result file."""


def shortened(value: Any) -> str:
    """Return a value of the user for a message: its ``repr``, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def as_word(value: Any) -> str:
    """Return a value of the user for a message: printable text as it is, anything else ``shortened``."""
    text = str(value)
    return text if text.isprintable() and 0 < len(text) <= _SHOWN else shortened(value)
