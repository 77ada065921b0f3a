"""What a caller may hook into an evaluation."""

from __future__ import annotations

from collections.abc import Callable

from fewseg.model.contract import Prediction

Check = Callable[[], None]
"""Called now and then; may raise to stop."""

Observe = Callable[[int, int, Prediction], None]
"""Receives the prediction of every episode: number of its manifest, number in it, a batch of one."""


def nothing(*_: object) -> None:
    """Hook nothing in."""
