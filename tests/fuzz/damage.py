"""Damage that any file can take, and strings that no file should hold."""

from __future__ import annotations

import random

ODD_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "x" * 5000,
        "/".join(["y" * 300] * 3),
        "../../etc/passwd",
        "/etc/passwd",
        "~root",
    ),
    *(
        "é\u202e\u0301",
        "\ud7ff",
        "\x1b[2J",
        "a\nb",
        "a\rb",
        "%s%n",
        "{fold",
        "{0.__class__}",
        "$HOME",
        "-1",
        "nan",
    ),
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with bits turned, cut off, torn out, doubled, overwritten or preceded by something."""
    place = rng.randrange(len(data)) if data else 0
    length = rng.choice((1, 2, 7, 64, 1000))
    junk = bytes(rng.randrange(256) for _ in range(min(length, 64)))
    kind = rng.randrange(10)
    if kind < 4:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 8))):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    return (
        data[:place],
        data[:place] + data[place + length :],
        data[:place] + data[place : place + length] * 2 + data[place + length :],
        data[:place] + junk + data[place + len(junk) :],
        rng.choice((b"", b"\0" * len(data), junk, b"\xff\xfe" + data, b"\xef\xbb\xbf" + data)),
        data[:place] + b"\0" * length + data[place + length :],
    )[kind - 4]


def damaged_text(text: str, rng: random.Random) -> str:
    """Return ``text`` with a line removed, doubled, moved, cut, joined to the next or made odd."""
    lines = text.split("\n")
    place = rng.randrange(len(lines))
    line, odd = lines[place], rng.choice(ODD_TEXTS)
    cut = rng.randrange(len(line) + 1)
    changed = rng.choice(
        (
            [],
            [line, line],
            [line[:cut]],
            [line[cut:] + line[:cut]],
            [odd],
            [line[:cut] + odd + line[cut:]],
            [f"{line} {odd}"],
            [line, *rng.sample(lines, min(3, len(lines)))],
        )
    )
    return "\n".join(lines[:place] + changed + lines[place + 1 :])
