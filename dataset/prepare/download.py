"""Download archives from several mirrors, check their checksums, and resume interrupted downloads.

The bytes received so far are kept in ``NAME.part``; the rest is requested by an HTTP range.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import requests

from fewseg.util.errors import DataError
from fewseg.util.log import get_log
from fewseg.util.progress import progress

ATTEMPTS = 3
"""Attempts at one mirror; each continues where the last one stopped."""

TIMEOUT = (10, 60)
"""Timeouts in seconds, for a connection and for the next bytes."""

CHUNK = 1 << 16
"""Bytes read at once; an incomplete chunk is lost when the download is interrupted."""


@dataclass(frozen=True)
class Archive:
    """A published archive of a data set.

    Attributes:
        name: name of the file.
        urls: its URLs, tried in this order.
        checksum: ``md5:...`` or ``sha256:...``; None where none is published. Completeness is then checked
            when the archive is opened and its files are counted.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str | None = None

    def found_at(self, mirrors: Sequence[str], checksums: Mapping[str, str]) -> Archive:
        """Return the archive with the user's mirrors first, and with the user's checksum if there is one."""
        urls = tuple(f"{mirror.rstrip('/')}/{self.name}" for mirror in mirrors)
        return replace(self, urls=urls + self.urls, checksum=checksums.get(self.name, self.checksum))


def fetch(archive: Archive, folder: str | Path) -> Path:
    """Return the path of the archive in ``folder``, downloaded unless it is complete.

    Raises:
        DataError: no mirror gave the right file, or the disk is full; it says what is kept for the next run.
    """
    folder, log = Path(folder), get_log("prepare")
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file() and not matches(path, archive.checksum):
            log.warning("%s: wrong checksum, taken for the start of a download", path)
            path.replace(part)
    except OSError as failure:
        raise DataError(
            f"{folder}: cannot hold downloads ({failure.strerror}); choose another --downloads"
        ) from failure
    if path.is_file():
        return path
    failures = []
    for url in archive.urls:
        reason = _fetch_from(url, archive.checksum, path, part)
        if not reason:
            return path
        failures.append(f"{url}: {reason}")
        log.warning("%s: %s", url, reason)
        if archive.checksum is None:
            part.unlink(missing_ok=True)  # another mirror's file need not be the same
    left = f"{part} is kept, the next run goes on from there" if part.exists() else "nothing is kept"
    raise DataError(
        f"{archive.name} could not be fetched ({'; '.join(failures)}); {left}. Fetch it yourself into "
        f"{folder}, or give --mirror"
    )


def _fetch_from(url: str, checksum: str | None, path: Path, part: Path) -> str:
    """Download from one mirror; return what went wrong, or an empty text."""
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            resumed = _download(url, part)
            if matches(part, checksum):
                os.replace(part, path)
                return ""
            part.unlink()
        except requests.HTTPError as failure:
            assert failure.response is not None  # raise_for_status gives it along
            return f"status {failure.response.status_code}"
        except (requests.RequestException, ConnectionError) as failure:
            reason = f"broke off ({type(failure).__name__})" if part.exists() else "no connection"
            continue
        except OSError as failure:
            raise DataError(
                f"{path}: cannot be written ({failure.strerror or failure}); what has arrived is kept in "
                f"{part}: free space and run again"
            ) from failure
        reason = "wrong checksum, the file was removed"
        if not resumed:
            return reason  # the next mirror may have the right bytes
    return reason


def _download(url: str, part: Path) -> bool:
    """Complete ``part``; return whether an earlier download was resumed."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file itself
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        extent = response.headers.get("Content-Range", "")  # "bytes 1000-1999/2000", or "bytes */2000"
        if response.status_code == 416 and start:
            if extent.endswith(f"/{start}"):
                return True
            part.unlink()  # it is longer than the file, so start again
            return _download(url, part)
        response.raise_for_status()
        resumed = response.status_code == 206 and start > 0 and extent.startswith(f"bytes {start}-")
        arrived = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = arrived + int(length) if length else None
        bar = progress(None, part.stem, total=total, initial=arrived, unit="B", unit_scale=True)
        with bar, part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                arrived += file.write(chunk)
                bar.update(len(chunk))
    if total is not None and arrived < total:
        raise ConnectionError(f"the server broke off after {arrived} of {total} bytes")
    return resumed


def matches(path: Path, checksum: str | None) -> bool:
    """Whether a file has the checksum, if there is one."""
    return checksum is None or checksum_like(path, checksum) == checksum.lower()


def checksum_like(path: Path, other: str) -> str:
    """Return the checksum of a file by the same algorithm as ``other``."""
    kind = other.partition(":")[0]
    digest = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"
