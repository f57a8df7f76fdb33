"""How much a logical cluster keeps: counted by the store when somebody asks, its bytes estimated from a page."""

from __future__ import annotations

from typing import Final

from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Store

PAGE_ENTRIES: Final = 200


class Totals:
    """Entries and bytes by a cluster's id. `store` sees the whole server."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def total(self, cluster_id: str) -> tuple[int, int]:
        """Entries of the cluster, and their bytes: exact up to a page, above it by the mean of one. Raises StorageError."""
        keys = Keyspace(self._store, cluster_id)
        page = await keys.list("", limit=PAGE_ENTRIES)
        count = len(page.entries)
        if count == PAGE_ENTRIES:
            count = await keys.count("") if page.remaining is None else count + page.remaining
        size = sum(len(entry.key) + len(entry.value) for entry in page.entries)
        if count > len(page.entries) > 0:
            size = size * count // len(page.entries)
        return count, size
