"""Unpacking, linking and writing the many files of a data set; a file is either complete or not there."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image

from fewseg.dataset.shapes.drawing import voc_palette
from fewseg.util.errors import DataError, shortened
from fewseg.util.files import is_inside, is_path, read_text
from fewseg.util.progress import progress

Choose = Callable[[PurePosixPath], "PurePosixPath | str | None"]
"""Maps a member's path to its path below the target folder, or to None to leave the member out."""

_PALETTE = voc_palette().tobytes()
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error),
    *(EOFError, LookupError, OverflowError, ValueError),
)

_UNCHECKED = (".tgz", ".gz")
"""Suffixes of archives that have only one checksum, at their end."""


def is_archive(path: Path) -> bool:
    """Whether a path is a file with the suffix of a tar or zip archive."""
    return path.is_file() and path.name.lower().endswith((".tar", ".tgz", ".tar.gz", ".zip"))


def unpack(archive: Path, target: Path, choose: Choose) -> int:
    """Unpack the members that ``choose`` selects, except those that are already there in full size.

    Returns:
        The number of selected members.

    Raises:
        DataError: the archive is damaged or truncated, or the disk is full.
    """
    selected, written = 0, []
    try:
        with _members(archive) as members:
            for name, size, read in progress(members, f"unpacking {archive.name}", unit="file"):
                place = choose(PurePosixPath(name))
                if place is None:
                    continue
                selected += 1
                path = target / place
                if not is_path(name) or path == target or not is_inside(target, path):
                    raise DataError(
                        f"{archive}: {shortened(name)} would be written outside {target}; do not use it"
                    )
                if not path.is_file() or path.stat().st_size != size:
                    written.append(path)
                    with read() as content:
                        put(path, partial(_copy, content))
    except DataError:
        raise
    except _DAMAGE as failure:
        reason = (str(failure) or type(failure).__name__).splitlines()[0].rstrip(":")
        raise DataError(
            f"{archive}: damaged or truncated ({reason}); it stays where it is: delete or replace it, and "
            f"run again. {_kept(archive, target, selected, written)}"
        ) from failure
    except RuntimeError as failure:  # zipfile raises it for a password or an unknown compression
        raise DataError(
            f"{archive}: cannot be unpacked ({str(failure).splitlines()[0]}); pack it anew, plainly"
        ) from failure
    except OSError as failure:
        raise DataError(f"{archive}: cannot be read ({failure.strerror or failure})") from failure
    return selected


def _kept(archive: Path, target: Path, selected: int, written: list[Path]) -> str:
    """Return which files of a damaged archive are kept, after removing those that no checksum confirms."""
    if not archive.name.lower().endswith(_UNCHECKED):
        return f"{selected} files before the damage are kept in {target}"
    for path in written:
        path.unlink(missing_ok=True)
    return f"The {len(written)} files that came of it are removed, since the damage may be in any of them"


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, int, Callable[[], IO[bytes]]]]]:
    """Open an archive and give name, size and a function that opens it for each of its plain files."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as file:
            infos = [info for info in file.infolist() if not info.is_dir()]
            yield ((info.filename, info.file_size, partial(file.open, info)) for info in infos)
    else:
        with tarfile.open(archive) as tar:
            plain = (member for member in tar if member.isfile())
            yield ((member.name, member.size, partial(_extract, tar, member)) for member in plain)
            while tar.fileobj and _read(tar.fileobj.read):
                pass  # read to the end, where a compressed archive has its checksum


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # a plain file has content
    return content


def _copy(content: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        while block := _read(content.read):
            file.write(block)


def _read(read: Callable[[int], bytes]) -> bytes:
    """Read a part of a member; an OSError becomes an EOFError, so that it is not blamed on the target."""
    try:
        return read(1 << 20)
    except OSError as failure:
        raise EOFError(str(failure)) from failure


def put(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file, then move it to ``path``: a crash leaves no incomplete file.

    Unlike ``util.files``, it does not wait for the disk, which would take an hour for 100,000 masks.

    Raises:
        DataError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except OSError as failure:
        raise DataError(
            f"{path}: cannot be written ({failure.strerror or failure}); free space or choose another "
            "--root. What is finished is kept, run again to go on"
        ) from failure
    finally:
        part.unlink(missing_ok=True)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an image or a grey mask, uint8 [H,W,3] or [H,W]."""
    put(path, partial(Image.fromarray(pixels).save, format="PNG"))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask of ids, uint8 [H,W], as a palette PNG in VOC's colours."""
    image = Image.fromarray(mask, mode="P")
    image.putpalette(_PALETTE)
    put(path, partial(image.save, format="PNG"))


def place(source: Path, target: Path) -> None:
    """Make a file available at ``target``, by a hard link, or by a copy on another disk."""
    if target.exists():
        copy, original = target.stat(), source.stat()
        if copy.st_size == original.st_size and copy.st_mtime >= original.st_mtime:
            return

    def link_or_copy(part: Path) -> None:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)

    put(target, link_or_copy)


def link_folder(source: Path, target: Path) -> None:
    """Make a folder available at ``target`` by a symbolic link, unless it is there already.

    Raises:
        DataError: something else is at ``target``.
    """
    if target.exists() and target.resolve() == source.resolve():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
            target.rmdir()
        target.symlink_to(source.resolve(), target_is_directory=True)
    except OSError as failure:
        raise DataError(
            f"{target}: cannot link to {source} ({failure.strerror}); move what is there, or choose "
            "another --root"
        ) from failure


def read_lines(path: Path, what: str = "the list", remedy: str = "") -> list[str]:
    """Return the lines of a text file that are not empty, without surrounding blanks.

    Raises:
        DataError: the file cannot be read.
    """
    lines = read_text(path, what, remedy).splitlines()
    return [line.strip() for line in lines if line.strip()]


def require_folder(path: Path, what: str) -> Path:
    """Return ``path`` if it is a folder.

    Raises:
        DataError: it is missing or a file.
    """
    if path.is_dir():
        return path
    raise DataError(f"{path}: {what} is {'a file, not a folder' if path.exists() else 'missing'}")


def require_root(root: Path) -> Path:
    """Return the data root, created if it is missing.

    Raises:
        DataError: it is a file or cannot be created.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        reason = "it is a file" if root.is_file() else failure.strerror
        raise DataError(f"{root}: cannot be the data root ({reason}); choose another --root") from failure
    return root
