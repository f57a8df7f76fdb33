"""One leader's effects: what was written for leaders, in the order in which the store took it.

The lease and the term are read from the store itself, past all replicas. A term begins once, one above the last, in
the same write as its lease; from then on nobody renews an older one. What a leader writes beside that depends on the term's
revision in the store (storage/election.py), so terms that do not overlap here are effects that do not.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import orjson

from clusterling.storage.store import Event, StorageError, Store

PREFIX: Final = "~controllers/"
LEASE: Final = "~controllers/lease/-/main"
TERM: Final = "~controllers/term/-/main"


class Leaders:
    """Follows who leads until cancelled. `complaints` are for whoever asks; `terms` counts those seen to begin."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._term: dict[str, Any] | None = None
        self.complaints: list[str] = []
        self.terms = 0

    def forget(self) -> None:
        """The store is put back: terms that were are not."""
        self._term = None

    async def run(self) -> None:
        while True:
            try:
                async with self._store.watch(PREFIX, after=self._store.head()) as watch:
                    async for batch in watch:
                        for event in batch.events:
                            self._take(event)
            except StorageError:
                # A gap: the term that holds now may be a later one.
                self._term = None
                await asyncio.sleep(0.1)

    def _take(self, event: Event) -> None:
        if event.entry is None or event.key not in (LEASE, TERM):
            return
        said = orjson.loads(event.entry.value)
        if event.key == TERM:
            if self._term is not None and said["term"] != self._term["term"] + 1:
                self.complaints.append(f"term {said} follows {self._term}")
            self._term = said
            self.terms += 1
            return
        now = self._term
        if now is None or said["term"] == now["term"] + 1:
            return  # The lease of a term whose record comes next.
        if said["term"] != now["term"] or said["holder"] not in (now["holder"], ""):
            self.complaints.append(f"the lease {said} was written in term {now}")
