"""Undo a step that an error interrupted, so that the last complete step can be saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from fewseg.model.contract import Network


class SafePoint:
    """Restores the state between two steps.

    A step that fails before the optimizer begins has changed no parameter, but possibly running statistics,
    other buffers and the method's memory. A step that fails later cannot be undone.

    Args:
        model: the model that is trained.
        optimizer: the optimizer of its parameters.
    """

    def __init__(self, model: Network, optimizer: Optimizer) -> None:
        self._model = model
        self._updating = False
        self._undo: list[Callable[[], Any]] = []
        optimizer.register_step_pre_hook(self._note)

    @contextmanager
    def step(self) -> Iterator[None]:
        """A context for a step and the update of the progress."""
        self._undo = self._changes()
        yield
        self._undo, self._updating = [], False  # only after a complete step

    def restore(self) -> None:
        """Go back to the end of the last complete step.

        Raises:
            RuntimeError: the optimizer had begun, so weights may have changed.
        """
        if self._updating:
            raise RuntimeError("the error came amid an update of the weights")
        with torch.no_grad():
            for undo in self._undo:
                undo()
        self._undo = []

    def _note(self, *_: object) -> None:
        self._updating = True

    def _changes(self) -> list[Callable[[], Any]]:
        """Return functions that undo the changes of a forward pass."""
        learning = (module for module in self._model.modules() if module.training)
        buffers = (buffer for module in learning for buffer in module.buffers(recurse=False))
        return [*(partial(buffer.copy_, buffer.clone()) for buffer in buffers), self._model.memory.watch()]
