"""TensorBoard: losses, rates, scores and pictures of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from util import distributed


class Board:
    """Writes event files below ``folder`` in the main process, and nothing in the others."""

    def __init__(self, folder: str | Path) -> None:
        self._writer = None
        if distributed.is_main():
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(folder))

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write ``values`` as ``group/name``."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Write an RGB picture, uint8 [H,W,3]."""
        if self._writer is not None:
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Finish the files."""
        if self._writer is not None:
            self._writer.close()
