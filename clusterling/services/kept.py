"""Kept: made things by key within a budget of bytes, shared by everybody who asks for the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")


class Kept:
    """The least recently used goes beyond the budget. Keys name content: what is under one never changes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._found: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._found

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """What is kept under the key, made if it is not. `size` tells its bytes."""
        known = self._found.get(key)
        if known is not None:
            self._found.move_to_end(key)
            return known[0]  # type: ignore[return-value]
        made = make()
        self.keep(key, made, size(made))
        return made

    def keep(self, key: Hashable, made: object, size: int) -> None:
        """Keeps what was made meanwhile."""
        _, before = self._found.pop(key, (None, 0))
        self._found[key] = (made, size)
        self._bytes += size - before
        while self._bytes > self._bytes_max and len(self._found) > 1:
            _, (_, dropped) = self._found.popitem(last=False)
            self._bytes -= dropped
