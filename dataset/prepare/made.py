"""The files of a data root that its preparation made, so that a later preparation removes obsolete ones.

A file that no preparation made is never removed; one that was changed since is neither removed nor replaced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from fewseg.dataset.prepare.layout import checksums, read_checksums, write_checksums
from fewseg.util.errors import DataError
from fewseg.util.files import is_inside
from fewseg.util.log import get_log

RECORD = ".fewseg/made.crc32"
"""The record, with one file per line: CRC-32 in hexadecimal, path below the root."""

_IN_THE_MAKING = "-"
"""Stands for the checksum of a file that a run began to make; any such file was written by that run."""


class MadeFiles:
    """The files below a data root that preparations made.

    Args:
        root: the data root.
        workers: see ``util.parallel.parallel_map``.
    """

    def __init__(self, root: Path, workers: int | None = None) -> None:
        self.root, self._workers = root, workers
        self._sums = read_checksums(root / RECORD)

    def is_untouched(self, path: str) -> bool:
        """Whether a preparation made the file and it has not changed since."""
        return path in self._sums and not self._changed([path])

    def begin(self, sources: Mapping[str, Path | None]) -> None:
        """Record the files that are about to be made, so that those of an interrupted run are known.

        Args:
            sources: path below the root -> the file that it will be a hard link to, or None.

        Raises:
            DataError: a file was changed since it was made.
        """
        existing = [path for path in sources if path in self._sums and (self.root / path).is_file()]
        # A hard link to a source that was edited in place has changed with it, as it should.
        changed = [p for p in self._changed(existing) if not _is_second_name(self.root / p, sources[p])]
        if changed:
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise DataError(
                f"{self.root / changed[0]}: was changed since it was made{more}; delete it to have it made "
                "again, carry the change over to the source, or choose another --root"
            )
        own = [path for path in sources if path in self._sums or not (self.root / path).exists()]
        self._write(self._sums | dict.fromkeys(own, _IN_THE_MAKING))

    def finish(self, belonging: Collection[str]) -> int:
        """Record what was made, remove obsolete files, and return how many were removed.

        Args:
            belonging: paths of the files that belong to the data set.
        """
        stale = self._sums.keys() - set(belonging)
        existing = [path for path in sorted(stale) if self._is_there(path)]
        changed = self._changed(existing)
        if changed:
            message = "%s: %d files of an earlier preparation were changed since and stay, first %s"
            get_log("prepare").warning(message, self.root, len(changed), changed[0])
        for path in set(existing) - set(changed):
            self._remove(self.root / path)
        new = [p for p, value in self._sums.items() if value == _IN_THE_MAKING and (self.root / p).is_file()]
        kept = {path: value for path, value in self._sums.items() if value != _IN_THE_MAKING}
        made = kept | self._checksums(new)
        self._write({path: value for path, value in made.items() if path not in stale})
        return len(existing) - len(changed)

    def add(self, path: str) -> None:
        """Record a single file that was just made."""
        self._write(self._sums | self._checksums([path]))

    def _checksums(self, paths: list[str]) -> dict[str, str]:
        return checksums(self.root, paths, self._workers)

    def _changed(self, paths: list[str]) -> list[str]:
        """Return those of the recorded files that were changed since they were made."""
        finished = [path for path in paths if self._sums[path] != _IN_THE_MAKING]
        return [path for path, checksum in self._checksums(finished).items() if checksum != self._sums[path]]

    def _is_there(self, path: str) -> bool:
        target = self.root / path
        return target.is_file() and is_inside(self.root, target)

    def _remove(self, target: Path) -> None:
        """Remove a file, and the folders that it leaves empty."""
        target.unlink()
        folder = target.parent
        while folder != self.root and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    def _write(self, sums: Mapping[str, str]) -> None:
        self._sums = dict(sums)
        write_checksums(self.root / RECORD, self._sums)


def _is_second_name(target: Path, source: Path | None) -> bool:
    return source is not None and target.samefile(source)
