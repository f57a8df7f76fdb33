"""The revisions that the watch has told of keys lately: what is written soon after it was read is nearly always one of them.

A writer expects a key at some revision. If that is what the watch has told, it is a true one, and etcd's own revision of the
key says whether it still holds. If not, it may be another key's, and more has to be compared (`writing.Terms`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from clusterling.storage.backend import Transaction
from clusterling.storage.store import Event

KEYS: Final = 4096  # Of a generation; there are two.

NOTHING_TOLD: Final[Mapping[str, int]] = MappingProxyType({})


class Told:
    """Keys by the last revision told of them."""

    def __init__(self) -> None:
        self._new: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._found: dict[str, int] = {}

    def hear(self, events: Iterable[Event]) -> None:
        """Takes events in their order. Deletions and drops are none of it: what is gone has no revision."""
        new = self._new
        for event in events:
            if event.entry is not None:
                new[event.key] = event.revision
        if len(new) > KEYS:
            self._old, self._new = new, {}

    def forget(self) -> None:
        """There is a gap, or the store was put back: none of it counts, nor what was given last."""
        self._old, self._new = {}, {}
        self._found.clear()

    def among(self, transactions: Sequence[Transaction]) -> Mapping[str, int]:
        """Keys that the transactions expect at the very revision that was told."""
        new, old = self._new, self._old
        found = self._found = {}
        for transaction in transactions:
            for guard in transaction.guards:
                if guard.revision and (new.get(guard.key) or old.get(guard.key)) == guard.revision:
                    found[guard.key] = guard.revision
            for op in transaction.ops:
                if op.expected and (new.get(op.key) or old.get(op.key)) == op.expected:
                    found[op.key] = op.expected
        return found
