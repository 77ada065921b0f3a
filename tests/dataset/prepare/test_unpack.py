"""Archives that cannot be trusted: locked, damaged, with names that are none."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from fewseg.dataset.prepare.files import unpack
from fewseg.util.errors import DataError

CONTENT = {name: bytes(range(256)) * 40 for name in ("a.png", "b.png")}


def tar_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def refusal(archive: Path, target: Path) -> str:
    with pytest.raises(DataError) as caught:
        unpack(archive, target, lambda name: name)
    message = str(caught.value)
    assert str(archive) in message and len(message.splitlines()) == 1
    return message


def test_a_damaged_compressed_tar_leaves_nothing_that_may_be_wrong(tmp_path: Path) -> None:
    """Its only checksum stands at its end: what came before may be wrong, and the next run would keep it."""
    packed = bytearray(gzip.compress(tar_of(CONTENT), 0))
    packed[2000] ^= 1
    archive = tmp_path / "images.tar.gz"
    archive.write_bytes(packed)
    assert "The 2 files that came of it are removed" in refusal(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    archive.write_bytes(gzip.compress(tar_of(CONTENT)))
    assert unpack(archive, tmp_path / "out", lambda name: name) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == CONTENT


def test_a_locked_or_unknown_zip_is_one_line(tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", b"content")
    data = archive.read_bytes()
    for place, offset in ((data.find(b"PK\x03\x04"), 6), (data.find(b"PK\x01\x02"), 8)):
        data = data[: place + offset] + b"\x01" + data[place + offset + 1 :]
    archive.write_bytes(data)
    assert "is encrypted" in refusal(archive, tmp_path / "out")
    (tmp_path / "images.tar").write_bytes(b"no tar" * 100)
    assert "damaged or truncated" in refusal(tmp_path / "images.tar", tmp_path / "out")


@pytest.mark.parametrize("name", [".", "a\nb", "x" * 300, "../a"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "images.tar"
    archive.write_bytes(tar_of({name: b"content"}))
    assert "would be written outside" in refusal(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
