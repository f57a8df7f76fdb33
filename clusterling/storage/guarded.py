"""Guarded: a Store whose every write depends on one key besides: how a deleted cluster's late writers are stopped.

The key's revision is learnt at the first write, and anew after one that failed for it: a fence is rewritten where the
cluster is closed to writes or opened again, and has another revision in a store that was put back to a backup.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from typing_extensions import override

from clusterling.storage.store import (
    Entry,
    Guard,
    GuardFailed,
    Identity,
    Limit,
    Op,
    Page,
    Store,
    Usage,
    Watch,
)

CLOSED: Final = b'{"closed":true}'  # What a fence says that is there and lets no write through.


class Guarding(ABC):
    """A Store that makes each write depend on more than its writer said; all else goes through as it is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @abstractmethod
    async def added(self) -> Sequence[Guard]:
        """The guards that a write begun now gets besides its own. Raises GuardFailed where none may begin."""

    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        return await self._store.write(ops, (*guards, *await self.added()), limits)

    async def usage(self, prefix: str) -> Sequence[Usage]:
        return await self._store.usage(prefix)

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
    """Adds one guard to each write. `fence` is read in the same `store`; where it is absent or closed, no write is done."""

    def __init__(self, store: Store, fence: str) -> None:
        super().__init__(store)
        self._fence = fence
        self._added: tuple[Guard, ...] = ()

    @override
    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        try:
            return await self._store.write(ops, (*guards, *(self._added or await self.added())), limits)
        except GuardFailed as error:
            self._doubt(error)
            raise

    @override
    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        try:
            await super().drop(prefix, guards)
        except GuardFailed as error:
            self._doubt(error)
            raise

    def _doubt(self, error: GuardFailed) -> None:
        """What failed has failed; but the next write learns the fence anew: it may have been closed and opened meanwhile."""
        if error.args[0] == self._fence:
            self._added = ()

    def forget(self) -> None:
        """The fence was rewritten: the next write learns it anew."""
        self._added = ()

    @override
    async def added(self) -> Sequence[Guard]:
        if not self._added:
            entry = await self._store.get(self._fence)
            if entry is None or entry.value == CLOSED:
                raise GuardFailed(self._fence)
            self._added = (Guard(self._fence, entry.revision),)
        return self._added
