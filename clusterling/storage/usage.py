"""How much is kept: objects and bytes by collection, and whether a transaction would take more than it may.

A *collection* is what the first three parts of a key name, `<cluster id>/<group>/<resource>/`: totals are kept for each, and
what is larger is their sum. A transaction that adds nothing to what a limit counts passes, however much there is.

Values of less than two bytes are no objects, and count for nothing: they are marks that hide something (`overlay.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from clusterling.storage.store import ABSENT, Limit, LimitReached, Measure, Op, Usage

COUNTED_BYTES_MIN: Final = 2
RECORDS: Final = "~"  # Sorts after everything that an object's key may go on with.


def collection_of(key: str) -> str:
    """What a key's first three slashes end, or its last where it has fewer; empty where it has none."""
    cut = 0
    for _ in range(3):
        found = key.find("/", cut) + 1
        if not found:
            break
        cut = found
    return key[:cut]


def counted(value: bytes | None) -> int | None:
    """The length for which a value counts; None where it is no object."""
    return None if value is None or len(value) < COUNTED_BYTES_MIN else len(value)


def is_whole(prefix: str) -> bool:
    """Whether the prefix has whole collections under it, and not a part of one."""
    return prefix == collection_of(prefix)


def counts(prefix: str, what: Measure, collection: str) -> bool:
    """Whether a limit on the prefix counts what is in the collection: of records, which begin with `~`, only the bytes."""
    return collection.startswith(prefix) and (
        what is Measure.BYTES or not collection.startswith(RECORDS, len(prefix))
    )


class Totals:
    """Usage by collection, in memory."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, int]] = {}

    def add(self, collection: str, objects: int, size: int) -> None:
        had, held = self._of.get(collection, (0, 0))
        if had + objects or held + size:
            self._of[collection] = had + objects, held + size
        else:
            self._of.pop(collection, None)

    def change(self, key: str, before: int | None, after: int | None) -> None:
        """What counts for so many bytes has taken the place of something else; None: of nothing, or nothing its."""
        objects = (after is not None) - (before is not None)
        size = (after or 0) - (before or 0)
        if objects or size:
            self.add(collection_of(key), objects, size)

    def drop(self, prefix: str) -> None:
        """Forgets what is under a prefix of whole collections."""
        for collection in [one for one in self._of if one.startswith(prefix)]:
            del self._of[collection]

    def under(self, prefix: str) -> Sequence[Usage]:
        """What `Store.usage` answers."""
        return [
            Usage(collection, objects, size)
            for collection, (objects, size) in sorted(self._of.items())
            if collection.startswith(prefix)
        ]

    def used(self, prefix: str, what: Measure) -> int:
        """How much there is under a prefix of whole collections, as a `Limit` counts it."""
        which = 0 if what is Measure.OBJECTS else 1
        return sum(
            figures[which] for collection, figures in self._of.items() if counts(prefix, what, collection)
        )


class Tally:
    """Looks at the transactions of a batch in their order: each adds to what the next finds used."""

    def __init__(
        self, used: Callable[[str, Measure], int], length_of: Callable[[Op], int | None] | None = None
    ) -> None:
        """`used`: what was there before the batch. `length_of`: for what the value counts that the op takes the place of.

        Without `length_of` a transaction counts for the most that it may add.
        """
        self._used = used
        self._length_of = length_of
        self._before: dict[tuple[str, Measure], int] = {}
        self._added = Totals()

    def refusal(self, ops: Sequence[Op], limits: Sequence[Limit]) -> LimitReached | None:
        """Why the ops cannot happen, if so; if not, they are taken to have happened."""
        growth = Totals()
        for key, objects, size in map(self._growth, ops):
            growth.add(collection_of(key), objects, size)
        for limit in limits:
            wanted = growth.used(limit.prefix, limit.what)
            if wanted > 0 and self.used(limit) + wanted > limit.most:
                return LimitReached(limit, self.used(limit), wanted)
        for collection, objects, size in growth.under(""):
            self._added.add(collection, objects, size)
        return None

    def used(self, limit: Limit) -> int:
        """How much there is now, with what has passed."""
        place = limit.prefix, limit.what
        before = self._before.get(place)
        if before is None:
            before = self._before[place] = self._used(limit.prefix, limit.what)
        return before + self._added.used(limit.prefix, limit.what)

    def _growth(self, op: Op) -> tuple[str, int, int]:
        after = counted(op.value)
        if self._length_of is None:
            if after is None:
                return op.key, 0, 0
            return op.key, 1, after  # What it takes the place of may be a mark.
        before = None if op.expected == ABSENT else self._length_of(op)
        return op.key, (after is not None) - (before is not None), (after or 0) - (before or 0)
