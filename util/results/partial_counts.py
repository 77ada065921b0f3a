"""The counts of a test that has not ended yet, in files beside its result, so that a killed test goes on.

Every process writes one file. The counts of an episode always have the same place in the arrays, so the files
of a test may overlap, and another number of processes can go on from them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from fewseg.util.distributed import rank
from fewseg.util.errors import ResultError
from fewseg.util.log import get_log
from fewseg.util.results.archive import read_archive, write_archive

SECONDS = 60.0
"""Time between two writes."""

Arrays = Mapping[str, np.ndarray]


class PartialCounts:
    """The files of one measurement.

    Args:
        folder: folder of the files; it is made when the first one is written.
        key: of the measurement, see ``util.results.identity.measurement_key``; it is part of the names of the
            files, so that counts of other weights or settings are never read.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self._key = folder, key
        self._written = time.monotonic()

    def due(self) -> bool:
        """Return whether the last write was more than ``SECONDS`` ago."""
        return time.monotonic() - self._written >= SECONDS

    def read(self) -> list[dict[str, np.ndarray]]:
        """Return the arrays of all files; a damaged file is left out with a warning."""
        parts = []
        for file in self._files():
            try:
                parts.append(read_archive(file))
            except ResultError as error:
                get_log("test").warning("%s; its episodes are counted anew", error)
        return parts

    def write(self, arrays: Arrays) -> None:
        """Write the file of this process.

        Raises:
            ResultError: it cannot be written; the file before it is unchanged.
        """
        write_archive(self._own, arrays, compressed=False)
        self._written = time.monotonic()

    def replace_all(self, arrays: Arrays) -> None:
        """Write the file of this process, which holds the content of all others, and remove these."""
        self.write(arrays)
        for file in self._files():
            if file != self._own:
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the files, those of killed writes too."""
        for file in self.folder.glob(f"*{self._key}_*"):
            file.unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent):
            with suppress(OSError):  # other counts are there
                folder.rmdir()

    @property
    def _own(self) -> Path:
        return self.folder / f"{self._key}_{rank()}.npz"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self._key}_*.npz"))
