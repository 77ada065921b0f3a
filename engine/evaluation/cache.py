"""A cache of encodings that later episodes need again, within a memory budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable

from fewseg.model.contract import Encoding

GIB = 1 << 30
_NEVER = float("inf")


class EncodingCache:
    """Caches the encodings that are needed soonest.

    All uses are known beforehand. If the budget is exceeded, the encoding whose next use is the latest is
    removed, which is the optimal rule. An encoding that is never used again is removed at once.

    Args:
        uses: the key of every use, in the order in which ``get`` will be called.
        budget: size of the cached tensors, in bytes.

    Attributes:
        made: number of encodings that were computed.
        held: bytes of the tensors that are cached now.
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
        """Return the encoding of ``key`` for its next use, from ``encode()`` if it is not cached."""
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

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

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
    """Return the size of an encoding's tensors in bytes."""
    return sum(tensor.element_size() * tensor.nelement() for tensor in encoding.values())
