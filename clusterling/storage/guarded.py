"""Guarded: a Store whose every write depends on one key besides: how a deleted cluster's late writers are stopped.

The key's revision is learnt at the first write and holds for good: a fence that was rewritten is another fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from clusterling.storage.store import Entry, Guard, GuardFailed, Identity, Op, Page, Store, Watch


class Guarded:
    """Adds one guard to each write; all else goes through. Implements Store.

    `fence` is read in the same `store`. Where it is absent, every write raises GuardFailed with it.
    """

    def __init__(self, store: Store, fence: str) -> None:
        self._store = store
        self._fence = fence
        self._guard: Guard | None = None

    async def write(self, ops: Sequence[Op], guards: Sequence[Guard] = ()) -> Sequence[int]:
        guard = self._guard
        if guard is None:
            entry = await self._store.get(self._fence)
            if entry is None:
                raise GuardFailed(self._fence)
            guard = self._guard = Guard(self._fence, entry.revision)
        return await self._store.write(ops, (*guards, guard))

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        return await self._store.list(prefix, after=after, limit=limit, revision=revision)

    async def count(self, prefix: str) -> int:
        return await self._store.count(prefix)

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return self._store.watch(prefix, after=after)

    def head(self) -> int:
        return self._store.head()

    async def fresh(self) -> int:
        return await self._store.fresh()

    async def compact(self, horizon: int) -> None:
        await self._store.compact(horizon)

    async def drop(self, prefix: str) -> None:
        await self._store.drop(prefix)

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        return await self._store.expired(now, limit)

    async def identity(self) -> Identity:
        return await self._store.identity()
