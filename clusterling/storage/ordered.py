"""Entries in the order of their keys, of which a reader may take a part as it is now, however many there are.

They are kept in blocks. What is read in one go is a *cut*: it holds the blocks, not copies of them, and a block that a cut
may hold is copied before it is written to. So a reader of 100,000 entries costs a hundred pointers when it begins, sees one
moment for as long as it reads, and holds on to no more than what was rewritten since.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import Final, overload

from typing_extensions import override

from clusterling.storage.store import Entry

BLOCK_MAX: Final = 1024
COPIED_MAX: Final = 512  # Fewer entries than this are copied rather than cut out.

_key: Final = attrgetter("key")

# A place between entries: the number of a block, and an index into it.
Place = tuple[int, int]


class Cut(Sequence[Entry]):
    """A part of the entries as they were at one moment."""

    __slots__ = ("_blocks", "_length", "_start")

    def __init__(self, blocks: Sequence[list[Entry]], start: int, length: int) -> None:
        """`start`: how many entries of the first block come before."""
        self._blocks = blocks
        self._start = start
        self._length = length

    @override
    def __len__(self) -> int:
        return self._length

    @override
    def __iter__(self) -> Iterator[Entry]:
        start = self._start
        return islice(chain.from_iterable(self._blocks), start, start + self._length)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    @override
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        at = self._start + (index % self._length)
        for block in self._blocks:
            if at < len(block):
                return block[at]
            at -= len(block)
        raise AssertionError("blocks hold at least what the cut does")


class Ordered:
    """Entries by key, in order."""

    __slots__ = ("_blocks", "_lasts", "_lent")

    def __init__(self) -> None:
        self._blocks: list[list[Entry]] = []  # None is empty.
        self._lasts: list[str] = []  # Of each block, its last key.
        self._lent: list[bool] = []  # Of each block, whether a cut may hold it.

    def extend(self, entries: Sequence[Entry]) -> None:
        """Adds entries in order, behind all that are there."""
        blocks = self._blocks
        for start in range(0, len(entries), BLOCK_MAX):
            part = list(entries[start : start + BLOCK_MAX])
            if blocks and not self._lent[-1] and len(blocks[-1]) + len(part) <= BLOCK_MAX:
                blocks[-1] += part
                self._lasts[-1] = part[-1].key
            else:
                blocks.append(part)
                self._lasts.append(part[-1].key)
                self._lent.append(False)

    def put(self, entry: Entry) -> None:
        """Adds the entry, or has it take the place of that with its key."""
        key = entry.key
        if not self._blocks:
            self.extend((entry,))
            return
        number = min(bisect_left(self._lasts, key), len(self._blocks) - 1)
        block = self._own(number)
        index = bisect_left(block, key, key=_key)
        if index < len(block) and block[index].key == key:
            block[index] = entry
            return
        block.insert(index, entry)
        self._lasts[number] = block[-1].key
        if len(block) > BLOCK_MAX:
            half = len(block) // 2
            self._blocks.insert(number + 1, block[half:])
            self._lasts.insert(number + 1, block[-1].key)
            self._lent.insert(number + 1, False)
            del block[half:]
            self._lasts[number] = block[-1].key

    def remove(self, key: str) -> None:
        """Removes the entry with that key, which is there."""
        number = bisect_left(self._lasts, key)
        block = self._own(number)
        index = bisect_left(block, key, key=_key)
        assert block[index].key == key, "only what is there can be removed"
        del block[index]
        self._settle(number)

    def remove_between(self, low: Place, high: Place) -> list[Entry]:
        """Removes what is between two places, and returns it."""
        gone: list[Entry] = []
        for number in range(min(high[0], len(self._blocks) - 1), low[0] - 1, -1):
            block = self._own(number)
            start = low[1] if number == low[0] else 0
            end = high[1] if number == high[0] else len(block)
            gone += block[start:end]
            del block[start:end]
            self._settle(number)
        return gone

    def start(self) -> Place:
        return 0, 0

    def end(self) -> Place:
        return len(self._blocks), 0

    def before(self, key: str) -> Place:
        """The place before the key, whether or not it is there."""
        number = bisect_left(self._lasts, key)
        return number, bisect_left(self._blocks[number], key, key=_key) if number < len(self._blocks) else 0

    def after(self, key: str) -> Place:
        """The place behind the key, whether or not it is there."""
        number = bisect_right(self._lasts, key)
        return number, bisect_right(self._blocks[number], key, key=_key) if number < len(self._blocks) else 0

    def count(self, low: Place, high: Place) -> int:
        """How many entries are between two places, the first of which is not behind the other."""
        return sum(map(len, self._blocks[low[0] : high[0]])) - low[1] + high[1]

    def cut(self, low: Place, high: Place, limit: int = 0) -> Sequence[Entry]:
        """The entries between two places, the first so many of them, as they are now; `limit` 0: all."""
        length = self.count(low, high)
        if limit and limit < length:
            length = limit
        if length <= 0:
            return ()
        number, start = low
        if length <= COPIED_MAX:
            found = self._blocks[number][start : start + length]
            while len(found) < length:
                number += 1
                found += self._blocks[number][: length - len(found)]
            return found
        until, size = number, -start
        while size < length:
            size += len(self._blocks[until])
            self._lent[until] = True
            until += 1
        return Cut(tuple(self._blocks[number:until]), start, length)

    def _own(self, number: int) -> list[Entry]:
        """The block, to be written to."""
        if self._lent[number]:
            self._blocks[number] = self._blocks[number].copy()
            self._lent[number] = False
        return self._blocks[number]

    def _settle(self, number: int) -> None:
        """Something was taken out of the block."""
        block = self._blocks[number]
        if block:
            self._lasts[number] = block[-1].key
        else:
            del self._blocks[number], self._lasts[number], self._lent[number]
