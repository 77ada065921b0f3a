"""Masks and photographs that were damaged, or whose headers promise what they do not hold."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.reading.mask import read_image, read_mask
from tests.fuzz.damage import damaged
from tests.fuzz.outcome import accepted, cases, generator

SIDE = 48
INDICES = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((12, 12), np.uint8))
MODES = ("P", "L", "1", "I;16", "RGB", "RGBA", "LA", "tRNS", "compressed", "interlaced")


def encoded(mode: str) -> bytes:
    """Return the indices as a PNG of a kind."""
    options = {}
    if mode == "I;16":
        image = Image.fromarray(INDICES.astype(np.uint16))
    elif mode in ("P", "tRNS", "compressed"):
        image = Image.fromarray(INDICES).convert("P")
        image.putpalette(bytes(range(256)) * 3)
        image.putdata(INDICES.reshape(-1).tolist())
        options = (
            {"transparency": 3} if mode == "tRNS" else {"compress_level": 9} if mode == "compressed" else {}
        )
    else:
        image = Image.fromarray(INDICES if mode != "1" else INDICES % 2 * 255)
        image = image if mode == "interlaced" else image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, format="PNG", **options)
    return stream.getvalue()


def with_header(data: bytes, rng: random.Random) -> bytes:
    """Return a PNG whose header says otherwise, its checksum right or wrong."""
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", data[16:29])
    odd = rng.choice((0, 1, 47, 49, 96, 20000, 2**31 - 1, 2**32 - 1))
    changed = rng.choice(
        (
            (odd, height, depth, colour, compression, filters, interlace),
            (width, odd, depth, colour, compression, filters, interlace),
            (height * 2, width // 2, depth, colour, compression, filters, interlace),
            (60000, 60000, depth, colour, compression, filters, interlace),
            (width, height, rng.choice((0, 1, 2, 4, 16, 255)), colour, compression, filters, interlace),
            (width, height, depth, rng.choice((0, 2, 3, 4, 6, 9)), compression, filters, interlace),
            (width, height, depth, colour, compression, filters, rng.choice((1, 2))),
        )
    )
    chunk = b"IHDR" + struct.pack(">IIBBBBB", *changed)
    checksum = zlib.crc32(chunk) if rng.random() < 0.7 else zlib.crc32(data[12:29])
    return data[:12] + chunk + struct.pack(">I", checksum) + data[33:]


def bomb(rng: random.Random) -> bytes:
    """Return a small PNG whose pixels are a gigabyte, or only those of a text chunk."""
    side = rng.choice((144, 20000))
    blown = zlib.compress(b"\0" * (400 << 20), 9)
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    kind = rng.choice((b"IDAT", b"zTXt"))
    content = blown if kind == b"IDAT" else b"note\0\0" + blown
    chunks = [header, kind + content, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


@pytest.mark.parametrize("number", cases(60))
def test_masks(number: int, tmp_path: Path) -> None:
    rng = generator("mask", number)
    mode = MODES[number % len(MODES)]
    data = encoded(mode)
    wrong = damaged(data, rng) if number % 4 else with_header(data, rng)
    path = tmp_path / "odd.png"
    path.write_bytes(bomb(rng) if number % 30 == 29 else wrong)

    def read() -> None:
        mask = read_mask(path)
        assert mask.dtype == np.uint8 and mask.ndim == 2
        if number % 4 and wrong.startswith(data[:29]):  # the header still says what it said
            wanted = INDICES % 2 if mode == "1" else INDICES
            assert np.array_equal(mask, wanted), "other indices than were written"

    accepted(read, ("odd.png",))


@pytest.mark.parametrize("number", cases(30))
def test_photographs(number: int, tmp_path: Path) -> None:
    rng = generator("image", number)
    stream = io.BytesIO()
    suffix = ("jpg", "png")[number % 2]
    pixels = np.random.default_rng(number).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(stream, format={"jpg": "JPEG", "png": "PNG"}[suffix])
    data = stream.getvalue()
    wrong = with_header(data, rng) if suffix == "png" and number % 3 == 0 else damaged(data, rng)
    path = tmp_path / f"odd.{suffix}"
    path.write_bytes(bomb(rng) if number % 15 == 13 else wrong)

    def read() -> None:
        image = read_image(path)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size

    accepted(read, (path.name,))
