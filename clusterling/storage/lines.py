"""Lines: who waits for a batch while more wait than it holds; one line a cluster, which take turns.

Who is in front of his line is considered when it is its turn. Who cannot come into this batch, because of a key that it
writes already, keeps his place, and those behind him are considered; for whom there is no room left, his line is the first of the next
batch's, so that neither the many nor the large keep others waiting for more than a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Generic, TypeVar

# At those who wait, for one batch: writers of one hot key must not make each walk the whole line.
LOOKS_MAX: Final = 400

_T = TypeVar("_T")


class Choice(Enum):
    """What becomes of who was considered."""

    TAKEN = "he is in the batch"
    GONE = "he waits no longer"
    PASSED = "he stays where he is, and those behind him are asked"
    NO_ROOM = "he stays where he is, and his line waits for the next batch"


class _Line(Generic[_T]):
    """Of one cluster."""

    __slots__ = ("size", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[_T, int]] = deque()
        self.size = 0


class Lines(Generic[_T]):
    """All lines. Those that are empty are not there."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line[_T]] = {}
        self._turns: deque[str] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[_T]:
        for line in self._lines.values():
            for one, _ in line.waiting:
                yield one

    def of(self, cluster: str) -> tuple[int, int]:
        """How many wait in that line, and their sizes together."""
        line = self._lines.get(cluster)
        return (0, 0) if line is None else (len(line.waiting), line.size)

    def add(self, cluster: str, one: _T, size: int) -> None:
        """Behind all others of the cluster; a new line's turn is behind one of each that is there."""
        line = self._lines.get(cluster)
        if line is None:
            line = self._lines[cluster] = _Line()
            self._turns.append(cluster)
        line.waiting.append((one, size))
        line.size += size
        self._count += 1

    def choose(self, consider: Callable[[_T], Choice]) -> None:
        """Has those considered who are in front, in turns, until no line has anybody left, or there is room for none."""
        turns, lines = self._turns, self._lines
        passed: dict[str, list[tuple[_T, int]]] = {}
        resting: list[str] = []  # Of whom all were considered.
        without_room: list[str] = []
        looks = LOOKS_MAX
        while turns and looks:
            looks -= 1
            cluster = turns.popleft()
            line = lines[cluster]
            one, size = line.waiting.popleft()
            choice = consider(one)
            if choice is Choice.NO_ROOM:
                line.waiting.appendleft((one, size))
                without_room.append(cluster)
                continue
            if choice is Choice.PASSED:
                passed.setdefault(cluster, []).append((one, size))
            else:
                line.size -= size
                self._count -= 1
            if line.waiting:
                turns.append(cluster)
            elif cluster in passed:
                resting.append(cluster)
            else:
                del lines[cluster]
        for cluster, some in passed.items():
            lines[cluster].waiting.extendleft(reversed(some))
        turns.extend(resting)
        turns.extendleft(reversed(without_room))
