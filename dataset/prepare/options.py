"""The options that all preparations share, and the handling of archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fewseg.dataset.classes.class_folders import CLASS_FOLDER_DATA_SETS
from fewseg.dataset.prepare.download import Archive, checksum_like, fetch
from fewseg.dataset.prepare.files import Choose, unpack
from fewseg.dataset.prepare.layout import list_path, write_list, write_names, write_record
from fewseg.util.errors import DataError
from fewseg.util.files import write_text


@dataclass(frozen=True)
class Options:
    """The options that all preparations share.

    Attributes:
        root: the data root to prepare.
        downloads: folder that archives are downloaded to.
        lists: folder that lists for the configs are written to; None: the data root.
        mirrors, checksums: see ``Archive.found_at``.
        subset: accept a part of the data set.
        workers: see ``parallel_map``.
    """

    root: Path
    downloads: Path = Path("data/downloads")
    lists: Path | None = None
    mirrors: Sequence[str] = ()
    checksums: Mapping[str, str] = field(default_factory=dict)
    subset: bool = False
    workers: int | None = None

    def fetch(self, archive: Archive) -> Path:
        return fetch(archive.found_at(self.mirrors, self.checksums), self.downloads)

    def unpacked(self, path: Path, target: Path, choose: Choose, official: Sequence[Archive] = ()) -> Path:
        """Unpack an archive into ``target`` unless that is done; an interrupted unpacking is completed.

        Args:
            official: archives whose checksum a file of the same name must have.

        Raises:
            DataError: the archive is damaged, or not the official one.
        """
        status = path.stat()
        done, begun = _stamp(target, path.name, "unpacked"), _stamp(target, path.name, "begun")
        state = f"{status.st_size} {status.st_mtime_ns}\n"
        if done.is_file() and done.read_text() == state:
            return target
        self._require_official(path, official)
        write_text(begun, state, DataError)
        if not unpack(path, target, choose):
            begun.unlink()
            raise DataError(f"{path}: holds nothing of this data set; give another archive")
        write_text(done, state, DataError)
        begun.unlink()
        return target

    def finish(
        self, data_set: str, lists: Mapping[str, Sequence[str]], names: Sequence[str], masks: Sequence[str]
    ) -> None:
        """Write the lists (file name -> lines), class names and the record for ``--verify``."""
        written = {}
        for file, lines in lists.items():
            part = Path(file).stem
            written[part] = list_path(self.root, part) if self.lists is None else self.lists / file
            write_list(written[part], lines)
        # Masks of class folders hold no class ids; these number the folders and skip 255.
        write_names(self.root, names, with_ids=data_set not in CLASS_FOLDER_DATA_SETS)
        write_record(self.root, data_set, written, masks, workers=self.workers)

    def _require_official(self, path: Path, official: Sequence[Archive]) -> None:
        archive = next((archive for archive in official if archive.name == path.name), None)
        if archive is None or self.subset or path.parent == self.downloads:  # fetch has checked it there
            return
        valid = archive.found_at((), self.checksums).checksum
        actual = checksum_like(path, valid) if valid else None
        if actual != valid:
            raise DataError(
                f"{path}: wrong checksum, {actual} instead of {valid}; the file is kept as it is: fetch it "
                f"again, or accept it by --checksum {archive.name}={actual}"
            )


def is_half_unpacked(target: Path, archive: Archive) -> bool:
    """Whether an earlier run was interrupted while it unpacked ``archive`` into ``target``."""
    return _stamp(target, archive.name, "begun").is_file()


def _stamp(target: Path, name: str, kind: str) -> Path:
    return target / ".fewseg" / f"{name}.{kind}"
