"""Strings in order, in chunks, so that inserting among a million moves a few thousand pointers, not all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

CHUNK_MAX: Final = 2048


class SortedKeys:
    """A set of distinct strings that is iterated in order from anywhere."""

    def __init__(self) -> None:
        self._chunks: list[list[str]] = []
        self._lasts: list[str] = []  # _lasts[i] is _chunks[i][-1]; no chunk is empty.

    def add(self, key: str) -> None:
        """Adds a key that is not there."""
        if not self._chunks:
            self._chunks.append([key])
            self._lasts.append(key)
            return
        at = min(bisect_left(self._lasts, key), len(self._chunks) - 1)
        chunk = self._chunks[at]
        insort(chunk, key)
        self._lasts[at] = chunk[-1]
        if len(chunk) > CHUNK_MAX:
            half = len(chunk) // 2
            self._chunks.insert(at + 1, chunk[half:])
            self._lasts.insert(at + 1, chunk[-1])
            del chunk[half:]
            self._lasts[at] = chunk[-1]

    def remove(self, key: str) -> None:
        """Removes a key that is there."""
        at = bisect_left(self._lasts, key)
        chunk = self._chunks[at]
        index = bisect_left(chunk, key)
        assert chunk[index] == key, "only what is there can be removed"
        del chunk[index]
        if chunk:
            self._lasts[at] = chunk[-1]
        else:
            del self._chunks[at]
            del self._lasts[at]

    def between(self, after: str, before: str) -> Iterator[str]:
        """Keys above `after` and below `before`, in order. The set must not change meanwhile."""
        at = bisect_right(self._lasts, after)
        if at == len(self._chunks):
            return
        start = bisect_right(self._chunks[at], after)
        for chunk in self._chunks[at:]:
            if chunk[-1] < before:
                yield from chunk[start:] if start else chunk
            else:
                yield from chunk[start : bisect_left(chunk, before)]
                return
            start = 0
