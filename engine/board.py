"""TensorBoard: losses, rates, scores and pictures of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from util import distributed

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class Board:
    """Writes an event file below ``folder`` in the main process, and nothing in the others.

    Every start of a run has one file, made with the first value. A run that goes on hides what an earlier
    start wrote at ``first_step`` and later.

    Args:
        folder: of the event files.
        first_step: of this start.
    """

    def __init__(self, folder: str | Path, first_step: int = 1) -> None:
        self._folder, self._first_step = Path(folder), first_step
        self._writer: SummaryWriter | None = None

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write ``values`` as ``group/name``."""
        if distributed.is_main():
            for name, value in values.items():
                self._opened().add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Write an RGB picture, uint8 [H,W,3]."""
        if distributed.is_main():
            self._opened().add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> SummaryWriter:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            purge = self._first_step if self._first_step > 1 else None
            self._writer = SummaryWriter(str(self._folder), purge_step=purge)
        return self._writer
