"""Rectangles of positions, for running layers only where their output is wanted."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Window(NamedTuple):
    """A rectangle of positions of a grid; the row ``bottom`` and the column ``right`` do not belong to it."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def around(cls, inside: Tensor) -> Window:
        """Return the smallest window around all positions that are set in a bool tensor [B,1,h,w].

        It is the first position if none is set. The host waits for the numbers.
        """
        inside = inside.any(0)[0]
        rows, columns = (inside.any(axis).nonzero().flatten().tolist() or [0] for axis in (1, 0))
        return cls(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)

    def grown(self, margin: int, grid: tuple[int, ...]) -> Window:
        """Return the window with ``margin`` more positions on every side, as far as ``grid`` (h, w) goes."""
        top, left = max(0, self.top - margin), max(0, self.left - margin)
        return Window(top, left, min(grid[0], self.bottom + margin), min(grid[1], self.right + margin))

    def of(self, x: Tensor, shown: Window) -> Tensor:
        """Return this part of maps of which ``x`` [B,C,*,*] is the part ``shown``, as a view."""
        rows = slice(self.top - shown.top, self.bottom - shown.top)
        return x[..., rows, self.left - shown.left : self.right - shown.left]


def reach(layer: nn.Module) -> int:
    """Return how far the inputs that an output depends on may lie from it, in positions.

    The convolutions in ``layer`` keep the grid.
    """
    convolutions = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
    return sum(module.kernel_size[0] // 2 * module.dilation[0] for module in convolutions)
