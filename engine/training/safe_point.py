"""Undo a step that an error interrupted, or whose loss is not finite, so that the one before can be saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewseg.model.contract import Network


class SafePoint:
    """Restores the state between two steps.

    A step that fails before the optimizer begins has changed no parameter, but possibly running statistics,
    other buffers and the method's memory. A step that fails later cannot be undone.

    From the first loss on that is not finite, the optimizer's ``found_inf`` lets no step change a parameter.
    The host learns of it later. So the device decides which buffers are kept, those before that step, and all
    changes of the memory can be undone until ``settle`` is called.

    Args:
        model: the model that is trained.
        optimizer: the optimizer of its parameters, from ``create_optimizer``.

    Attributes:
        not_finite: ``found_inf`` of the optimizer: 1 after a loss that is not finite, else 0.
    """

    def __init__(self, model: Network, optimizer: Optimizer) -> None:
        self._model = model
        self.not_finite: Tensor = optimizer.found_inf  # type: ignore[attr-defined]
        self._begun = self._updating = False
        self._buffers: dict[torch.dtype, Tensor] = {}
        self._memory: list[Callable[[], None]] = []
        optimizer.register_step_pre_hook(self._note)

    @contextmanager
    def step(self) -> Iterator[None]:
        """A context for a step and the update of the progress."""
        self._keep_buffers()
        self._memory.append(self._model.memory.watch())
        self._begun = True
        yield
        self._begun = self._updating = False  # only after a complete step

    def settle(self) -> None:
        """Forget how to undo the steps so far: their losses are finite."""
        self._memory = self._memory[-1:] if self._begun else []
        if not self._begun:
            self._buffers = {}

    def restore(self, steps: int = 0) -> None:
        """Go back to the end of the last complete step, or further.

        Args:
            steps: number of complete steps to undo, which came with or after a loss that is not finite.

        Raises:
            RuntimeError: the optimizer had begun, so weights may have changed.
        """
        if self._updating:
            raise RuntimeError("the error came amid an update of the weights")
        if undone := steps + self._begun:
            for undo in reversed(self._memory[-undone:]):
                undo()
            self._restore_buffers()
            self._memory, self._begun = self._memory[:-undone], False

    def _note(self, *_: object) -> None:
        self._updating = True

    def _learning(self) -> Iterator[Tensor]:
        """Yield the buffers that a forward pass may change."""
        for module in self._model.modules():
            if module.training:
                yield from module.buffers(recurse=False)

    def _keep_buffers(self) -> None:
        """Copy the buffers, unless a loss before was not finite: one operation for all, not one for each."""
        flat: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self._learning():
            flat.setdefault(buffer.dtype, []).append(buffer.flatten())
        for dtype, parts in flat.items():
            now, kept = torch.cat(parts), self._buffers.get(dtype)
            self._buffers[dtype] = now if kept is None else torch.where(self.not_finite > 0, kept, now)

    @torch.no_grad()
    def _restore_buffers(self) -> None:
        at = dict.fromkeys(self._buffers, 0)
        for buffer in self._learning():
            start = at[buffer.dtype]
            at[buffer.dtype] = start + buffer.numel()
            buffer.copy_(self._buffers[buffer.dtype][start : at[buffer.dtype]].view_as(buffer))
