"""Fetch archives: several mirrors in turn, a checksum, and a broken-off download goes on where it stopped.

Pooch checks sums and moves finished files into place. It cannot resume, so its ``downloader`` hook is used
for that: ``ResumingDownload`` keeps what has arrived in ``NAME.part`` and asks for the rest by an HTTP range.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewseg.util.errors import DataError
from fewseg.util.progress import progress

_LOG = logging.getLogger("fewseg.prepare")  # util.log would bring torch into every worker

ATTEMPTS = 3
"""Tries at one mirror; each goes on where the last one stopped."""

TIMEOUT = (10, 60)
"""Seconds until a connection, and until the next bytes, are given up."""

CHUNK = 1 << 16
"""Bytes read at once; what a break cuts short of that is lost."""


@dataclass(frozen=True)
class Archive:
    """A file that a data set is published as.

    Attributes:
        name: of the file.
        urls: where it can be had, the first tried first.
        checksum: ``md5:...`` or ``sha256:...``; unset where none is published: completeness then shows when
            the archive is opened and its files are counted.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str | None = None

    def found_at(self, mirrors: Sequence[str], checksums: Mapping[str, str]) -> Archive:
        """Return the archive with the user's mirrors first and the user's checksum, if there is one."""
        own = tuple(f"{mirror.rstrip('/')}/{self.name}" for mirror in mirrors)
        return replace(self, urls=own + self.urls, checksum=checksums.get(self.name, self.checksum))


class ResumingDownload:
    """Downloads a URL as Pooch asks for it, but appends to what a broken-off download has left.

    Attributes:
        part: where bytes gather until the file is complete.
        resumed: whether the last download went on from an earlier one.
    """

    def __init__(self, part: Path, progress: bool) -> None:
        self.part, self.progress, self.resumed = part, progress, False

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Fetch the rest of ``url`` and move the whole to ``output_file``."""
        import requests

        start = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file itself
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            complete = response.status_code == 416 and self._total(response) == start
            if not complete:
                if response.status_code == 416:  # what is there is longer than the file: begin anew
                    self.part.unlink()
                    return self(url, output_file, pooch)
                response.raise_for_status()
                self.resumed = response.status_code == 206 and self._start(response) == start and start > 0
                self._append(response, start if self.resumed else 0)
            else:
                self.resumed = True
        os.replace(self.part, output_file)
        return None

    def _append(self, response: Any, start: int) -> None:
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = progress(
            None,
            self.part.stem,
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=not self.progress,
        )
        with bar, self.part.open("ab" if start else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and self.part.stat().st_size < total:
            raise ConnectionError(f"the server broke off after {self.part.stat().st_size} of {total} bytes")

    @staticmethod
    def _start(response: Any) -> int:
        range_ = response.headers.get("Content-Range", "").removeprefix("bytes ")
        return int(range_.split("-")[0]) if range_[:1].isdigit() else -1

    @staticmethod
    def _total(response: Any) -> int:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdigit() else -1


def fetch(archive: Archive, folder: str | Path, progress: bool = True) -> Path:
    """Return the archive in ``folder``, fetched unless it lies there complete.

    Raises:
        DataError: no mirror gave the right file, or the disk is full; it says what is kept for the next try.
    """
    folder = Path(folder)
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file() and not matches(path, archive.checksum):
            _LOG.warning("%s: wrong checksum, taken for the start of a download", path)
            path.replace(part)
    except OSError as failure:
        raise DataError(
            f"{folder}: cannot hold downloads ({failure.strerror}); choose another --downloads"
        ) from failure
    if path.is_file():
        return path
    failures = []
    for url in archive.urls:
        reason = _fetch_from(url, archive, path, part, progress)
        if reason is None:
            return path
        failures.append(f"{url}: {reason}")
        _LOG.warning("%s: %s", url, reason)
        if archive.checksum is None:
            part.unlink(missing_ok=True)  # another mirror's file need not be the same
    left = f"{part} is kept, the next run goes on from there" if part.exists() else "nothing is kept"
    raise DataError(
        f"{archive.name} could not be fetched ({'; '.join(failures)}); {left}. Fetch it yourself into "
        f"{folder}, "
        "or give --mirror"
    )


def _fetch_from(url: str, archive: Archive, path: Path, part: Path, progress: bool) -> str | None:
    """Fetch from one mirror; return what went wrong, or None."""
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    reason = ""
    for _ in range(ATTEMPTS):
        download = ResumingDownload(part, progress)
        try:
            pooch.retrieve(
                url, known_hash=archive.checksum, fname=path.name, path=path.parent, downloader=download
            )
            return None
        except requests.exceptions.HTTPError as failure:
            return f"status {failure.response.status_code}"
        except (requests.exceptions.RequestException, ConnectionError) as failure:
            reason = f"broke off ({type(failure).__name__})" if part.exists() else "no connection"
        except ValueError:
            reason = "wrong checksum, the file was removed"
            if not download.resumed:
                return reason  # the next mirror may have the right bytes
        except OSError as failure:
            raise DataError(
                f"{path}: cannot be written ({failure.strerror or failure}); what has arrived is kept in "
                f"{part}: "
                "free space and run again"
            ) from failure
    return reason


def matches(path: Path, checksum: str | None) -> bool:
    """Whether a file has the checksum, if there is one."""
    return checksum is None or checksum_like(path, checksum) == checksum.lower()


def checksum_like(path: Path, other: str) -> str:
    """Return the checksum of a file, of the kind that ``other`` is of."""
    import pooch

    kind = other.partition(":")[0]
    return f"{kind}:{pooch.file_hash(str(path), alg=kind)}"
