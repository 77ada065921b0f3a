"""Encodings that later episodes need again, kept within a budget of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable

from fewseg.model.contract import Encoding

GIB = 1 << 30
_NEVER = float("inf")


class EncodingCache:
    """Keeps what is needed soonest.

    All uses are known beforehand, so when memory runs short the encoding whose next use is the farthest goes,
    which no other rule can beat; one that is never used again goes at once.

    Args:
        uses: the key of every use, in the order in which ``get`` will be called.
        budget: bytes of tensors to keep.

    Attributes:
        made: encodings that had to be computed.
        held: bytes that are kept now.
    """

    def __init__(self, uses: Iterable[Hashable], budget: float) -> None:
        self._uses: dict[Hashable, deque[int]] = {}
        for position, key in enumerate(uses):
            self._uses.setdefault(key, deque()).append(position)
        self._kept: dict[Hashable, Encoding] = {}
        self._budget = budget
        self.made = 0
        self.held = 0

    def get(self, key: Hashable, encode: Callable[[], Encoding]) -> Encoding:
        """Return the encoding of ``key`` for its next use, by ``encode()`` if it is not kept."""
        self._uses[key].popleft()
        encoding = self._kept.get(key)
        if encoding is None:
            encoding = encode()
            self.made += 1
            if self._next_use(key) < _NEVER:
                self._keep(key, encoding)
        elif self._next_use(key) == _NEVER:
            self._drop(key)
        return encoding

    def _keep(self, key: Hashable, encoding: Encoding) -> None:
        self._kept[key] = encoding
        self.held += size_of(encoding)
        while self.held > self._budget:
            self._drop(max(self._kept, key=self._next_use))

    def _drop(self, key: Hashable) -> None:
        self.held -= size_of(self._kept.pop(key))

    def _next_use(self, key: Hashable) -> float:
        uses = self._uses[key]
        return uses[0] if uses else _NEVER


def size_of(encoding: Encoding) -> int:
    """Return the bytes of an encoding's tensors."""
    return sum(tensor.element_size() * tensor.nelement() for tensor in encoding.values())
