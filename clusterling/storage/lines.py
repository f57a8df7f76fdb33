"""Lines: who waits, one line a cluster, which take turns: for a batch while more wait than it holds, or for a controller's workers.

One at a time, it is the turn of whoever is in front of the next line. For a batch, who is in front of his line is considered when it is its turn. Who cannot come into this batch, because of a key that it
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


class _Place(Generic[_T]):
    """Of one who waits."""

    __slots__ = ("behind", "one", "size")

    def __init__(self, one: _T, size: int) -> None:
        self.one = one
        self.size = size
        self.behind: _Place[_T] | None = None


class _Line(Generic[_T]):
    """Of one cluster, never empty where it is one of `Lines`. Chained: of a hundred thousand lines, most are of one."""

    __slots__ = ("count", "first", "last", "size")

    def __init__(self, place: _Place[_T]) -> None:
        self.first: _Place[_T] | None = place
        self.last = place
        self.count = 1
        self.size = place.size

    def append(self, place: _Place[_T]) -> None:
        self.last.behind = self.last = place
        self.count += 1
        self.size += place.size

    def pop(self) -> _Place[_T]:
        place = self.first
        assert place is not None, "a line in which nobody waits has no turn"
        self.first, place.behind = place.behind, None
        self.count -= 1
        self.size -= place.size
        return place

    def put_back(self, place: _Place[_T]) -> None:
        """In front of all."""
        place.behind = self.first
        if self.first is None:
            self.last = place
        self.first = place
        self.count += 1
        self.size += place.size


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
            place = line.first
            while place is not None:
                yield place.one
                place = place.behind

    def of(self, cluster: str) -> tuple[int, int]:
        """How many wait in that line, and their sizes together."""
        line = self._lines.get(cluster)
        return (0, 0) if line is None else (line.count, line.size)

    def add(self, cluster: str, one: _T, size: int = 0) -> None:
        """Behind all others of the cluster; a new line's turn is behind one of each that is there."""
        place = _Place(one, size)
        line = self._lines.get(cluster)
        if line is None:
            self._lines[cluster] = _Line(place)
            self._turns.append(cluster)
        else:
            line.append(place)
        self._count += 1

    def take(self) -> _T:
        """Who is in front of the line whose turn it is. Somebody waits."""
        cluster = self._turns.popleft()
        line = self._lines[cluster]
        one = line.pop().one
        if line.first is None:
            del self._lines[cluster]
        else:
            self._turns.append(cluster)
        self._count -= 1
        return one

    def choose(self, consider: Callable[[_T], Choice]) -> None:
        """Has those considered who are in front, in turns, until no line has anybody left, or there is room for none."""
        turns, lines = self._turns, self._lines
        passed: dict[str, list[_Place[_T]]] = {}
        resting: list[str] = []  # Of whom all were considered.
        without_room: list[str] = []
        looks = LOOKS_MAX
        while turns and looks:
            looks -= 1
            cluster = turns.popleft()
            line = lines[cluster]
            place = line.pop()
            choice = consider(place.one)
            if choice is Choice.NO_ROOM:
                line.put_back(place)
                without_room.append(cluster)
                continue
            if choice is Choice.PASSED:
                passed.setdefault(cluster, []).append(place)
            else:
                self._count -= 1
            if line.first is not None:
                turns.append(cluster)
            elif cluster in passed:
                resting.append(cluster)
            else:
                del lines[cluster]
        for cluster, some in passed.items():
            for place in reversed(some):
                lines[cluster].put_back(place)
        turns.extend(resting)
        turns.extendleft(reversed(without_room))
