"""Errors that a user can cause. Scripts print them as one line and leave with exit status 2."""

from __future__ import annotations


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
