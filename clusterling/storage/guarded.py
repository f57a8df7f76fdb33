"""Guarded: a Store whose every write depends on one key besides: how a deleted cluster's late writers are stopped.

The key's revision is learnt at the first write and holds for good: a fence that was rewritten is another fence. Only
where the store begins a new epoch, after it was put back to a backup, may the same fence have another revision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager

from typing_extensions import override

from clusterling.storage.store import Entry, Guard, GuardFailed, Identity, Op, Page, Store, Watch


class Guarding(ABC):
    """A Store that makes each write depend on more than its writer said; all else goes through as it is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @abstractmethod
    async def added(self) -> Sequence[Guard]:
        """The guards that a write begun now gets besides its own. Raises GuardFailed where none may begin."""

    async def write(self, ops: Sequence[Op], guards: Sequence[Guard] = ()) -> Sequence[int]:
        return await self._store.write(ops, (*guards, *await self.added()))

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

    def fresh(self) -> Awaitable[int]:
        return self._store.fresh()

    async def compact(self, horizon: int) -> None:
        await self._store.compact(horizon)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        await self._store.drop(prefix, (*guards, *await self.added()))

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        return await self._store.expired(now, limit)

    async def identity(self) -> Identity:
        return await self._store.identity()


class Guarded(Guarding):
    """Adds one guard to each write. `fence` is read in the same `store`; where it is absent, no write is done."""

    def __init__(self, store: Store, fence: str) -> None:
        super().__init__(store)
        self._fence = fence
        self._added: tuple[Guard, ...] = ()
        self._epoch = 0

    @override
    async def write(self, ops: Sequence[Op], guards: Sequence[Guard] = ()) -> Sequence[int]:
        try:
            return await super().write(ops, guards)
        except GuardFailed as error:
            await self._doubt(error)
            raise

    @override
    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        try:
            await super().drop(prefix, guards)
        except GuardFailed as error:
            await self._doubt(error)
            raise

    async def _doubt(self, error: GuardFailed) -> None:
        """What failed has failed; but the next write learns the fence anew where its revision is of another epoch."""
        if error.args[0] == self._fence and (await self._store.identity()).epoch != self._epoch:
            self._added = ()

    @override
    async def added(self) -> Sequence[Guard]:
        if not self._added:
            epoch = (await self._store.identity()).epoch
            entry = await self._store.get(self._fence)
            if entry is None:
                raise GuardFailed(self._fence)
            self._added, self._epoch = (Guard(self._fence, entry.revision),), epoch
        return self._added
