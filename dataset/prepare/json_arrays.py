"""Walk through the arrays of a JSON file that is too large to be held in memory as Python objects.

COCO's annotations are 450 MB of text and some 2.5 GB once parsed. Here one element at a time is parsed, and
its place in the file is told, so that another process can read it again.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fewseg.util.errors import DataError

_WINDOW = 1 << 20
_BLANK = " \t\r\n"


class Element(NamedTuple):
    """An element of a top-level array: the array's key, first and last byte + 1, the parsed value."""

    key: str
    start: int
    end: int
    value: Any


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Map a file into memory to read from.

    Raises:
        DataError: it cannot be read or is empty.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except (OSError, ValueError) as failure:
        if isinstance(failure, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({getattr(failure, 'strerror', None) or failure})") from None


def text(value: str) -> str:
    """Return a string of an element as it was meant: elements are read byte by byte, as Latin-1."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace") if not value.isascii() else value


def elements(data: mmap.mmap, path: Path) -> Iterator[Element]:
    """Yield the elements of every top-level array of a JSON object, in file order.

    Raises:
        DataError: the file is truncated or no JSON object.
    """
    reader = _Reader(data, path)
    reader.expect("{")
    while not reader.skip("}"):
        key = reader.value()[0]
        reader.expect(":")
        if not reader.skip("["):
            reader.value()
        else:
            while not reader.skip("]"):
                value, start = reader.value()
                yield Element(key, start, reader.position, value)
                reader.skip(",")
        reader.skip(",")


class _Reader:
    """Parses values from a window that moves over the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.decoder = data, path, json.JSONDecoder()
        self.window, self.begin, self.place = "", 0, 0

    @property
    def position(self) -> int:
        return self.begin + self.place

    def _load(self, length: int) -> None:
        self.begin, self.place = self.position, 0
        self.window = self.data[self.begin : self.begin + length].decode("latin-1")

    def _peek(self) -> str:
        while True:
            while self.place < len(self.window):
                if self.window[self.place] not in _BLANK:
                    return self.window[self.place]
                self.place += 1
            if self.position >= len(self.data):
                raise self._broken()
            self._load(_WINDOW)

    def skip(self, sign: str) -> bool:
        """Step over ``sign`` if it comes next."""
        if self._peek() != sign:
            return False
        self.place += 1
        return True

    def expect(self, sign: str) -> None:
        if not self.skip(sign):
            raise self._broken()

    def value(self) -> tuple[Any, int]:
        """Parse the next value; return it and its first byte."""
        self._peek()
        start, length = self.position, _WINDOW
        while True:
            try:
                value, end = self.decoder.raw_decode(self.window, self.place)
                # A number that ends with the window may go on behind it.
                if end < len(self.window) or self.begin + end == len(self.data):
                    self.place = end
                    return value, start
            except json.JSONDecodeError:
                pass  # cut off by the window's end, most likely
            if self.begin + len(self.window) >= len(self.data):
                raise self._broken()
            self._load(length := 2 * length)

    def _broken(self) -> DataError:
        return DataError(
            f"{self.path}: truncated or no JSON at byte {self.position} of {len(self.data)}; fetch it again"
        )
