"""Archives that were damaged, are locked, or hold members with names that lead elsewhere."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from fewseg.dataset.prepare.files import unpack
from tests.fuzz.damage import ODD_TEXTS, damaged
from tests.fuzz.outcome import accepted, cases, generator

CONTENT = {f"data/{name}": bytes(range(256)) * 4 for name in ("a.png", "b.png", "c/d.png")}
NAMES = ("../../out", "/etc/out", "data/../../../out", "C:\\out", "..", ".", "data/a.png/b", *ODD_TEXTS)


def archive(path: Path, rng: random.Random, odd: bool) -> None:
    """Write an archive, with a member of an odd name or kind."""
    members = list(CONTENT.items())
    if odd:
        members.insert(rng.randrange(3), (rng.choice(NAMES), b"out"))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
            for name, content in members:
                file.writestr(zipfile.ZipInfo(name.encode(errors="replace").decode()), content)
        return
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name.encode(errors="replace").decode().replace("\0", ""))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if odd:
            info = tarfile.TarInfo("data/link")
            info.type, info.linkname = rng.choice(
                ((tarfile.SYMTYPE, "../../.."), (tarfile.LNKTYPE, "/etc/passwd"))
            )
            tar.addfile(info)
            info = tarfile.TarInfo("data/link/out")
            tar.addfile(info, io.BytesIO(b""))
        if odd and rng.random() < 0.3:
            info = tarfile.TarInfo("data/pipe")
            info.type = tarfile.FIFOTYPE
            tar.addfile(info)


def spoil_zip(data: bytes, rng: random.Random) -> bytes:
    """Return a zip file that says it is locked, packed otherwise, or larger than it is."""
    changed, kind = bytearray(data), rng.randrange(4)
    central = data.find(b"PK\x01\x02")
    local = data.find(b"PK\x03\x04")
    if kind == 0:
        for place, offset in ((local, 6), (central, 8)):
            changed[place + offset] |= 1
    elif kind == 1:
        method = rng.choice((1, 6, 9, 12, 14, 95, 99))
        for place, offset in ((local, 8), (central, 10)):
            struct.pack_into("<H", changed, place + offset, method)
    elif kind == 2:
        struct.pack_into("<I", changed, central + 24, rng.choice((0, 1, 10**9, 2**32 - 1)))
    else:
        struct.pack_into("<I", changed, central + 42, rng.choice((1, 10**6, 2**32 - 1)))
    return bytes(changed)


@pytest.mark.parametrize("number", cases(60))
def test_archives(number: int, tmp_path: Path) -> None:
    rng = generator("archive", number)
    path = tmp_path / "inner" / ("odd.zip", "odd.tar", "odd.tar.gz")[number % 3]
    path.parent.mkdir()
    odd = number % 2 == 0
    archive(path, rng, odd)
    if not odd:
        data = path.read_bytes()
        spoilt = path.suffix == ".zip" and rng.random() < 0.7
        path.write_bytes(spoil_zip(data, rng) if spoilt else damaged(data, rng))
    target = tmp_path / "inner" / "target"

    def choose(name: PurePosixPath) -> PurePosixPath | None:
        return name

    def read() -> None:
        unpack(path, target, choose)
        for name, content in CONTENT.items():
            if odd:
                assert (target / name).read_bytes() == content, f"{name} is not what was packed"

    accepted(read, (path.name,))
    found = [p for p in tmp_path.rglob("*") if p.is_file() and p != path and target not in p.parents]
    assert not found, f"written outside the target: {found}"
    assert not list(target.rglob("*.part")), "half a file is left"
    sizes = [p.stat().st_size for p in target.rglob("*") if p.is_file() and not p.is_symlink()]
    assert sum(sizes) < 1 << 20
    for name, content in CONTENT.items():
        if path.suffix != ".tar" and (target / name).is_file():
            assert (target / name).read_bytes() == content, f"{name} is not what was packed"
