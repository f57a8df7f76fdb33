"""A store whose watches can be made to fall behind, as one does whose reader was too slow for the window."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from typing_extensions import override

from clusterling.storage.store import (
    Batch,
    Compacted,
    Entry,
    Guard,
    Identity,
    Limit,
    Op,
    Page,
    Store,
    Usage,
    Watch,
)


class _Forgettable(Watch):
    def __init__(self, below: Watch) -> None:
        self._below = below
        self._callback: Callable[[], None] = lambda: None
        self._lost = False

    @property
    @override
    def revision(self) -> int:
        return self._below.revision

    @override
    def take(self) -> Batch | None:
        if self._lost:
            raise Compacted(self.revision)
        return self._below.take()

    @override
    def notify(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._below.notify(callback)

    @override
    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    @override
    async def __anext__(self) -> Batch:
        if self._lost:
            raise Compacted(self.revision)
        return await self._below.__anext__()

    def lose(self) -> None:
        """From now on this watch gets nothing but Compacted."""
        self._lost = True
        self._callback()

    def deafen(self) -> None:
        """Nothing more is told to the reader; what happens goes unseen until `lose`."""
        self._below.notify(lambda: None)


class Forgetful(Store):
    """Another store, and its watches in the order they were opened."""

    def __init__(self, below: Store) -> None:
        self._below = below
        self.watches: list[_Forgettable] = []

    @override
    async def get(self, key: str) -> Entry | None:
        return await self._below.get(key)

    @override
    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        return await self._below.list(prefix, after=after, limit=limit, revision=revision)

    @override
    async def count(self, prefix: str) -> int:
        return await self._below.count(prefix)

    @override
    async def usage(self, prefix: str) -> Sequence[Usage]:
        return await self._below.usage(prefix)

    @override
    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        return await self._below.write(ops, guards, limits)

    @override
    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return self._watch(prefix, after)

    @asynccontextmanager
    async def _watch(self, prefix: str, after: int) -> AsyncIterator[Watch]:
        async with self._below.watch(prefix, after=after) as below:
            watch = _Forgettable(below)
            self.watches.append(watch)
            yield watch

    @override
    def head(self) -> int:
        return self._below.head()

    @override
    async def fresh(self) -> int:
        return await self._below.fresh()

    @override
    async def compact(self, horizon: int) -> None:
        await self._below.compact(horizon)

    @override
    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        await self._below.drop(prefix, guards)

    @override
    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        return await self._below.expired(now, limit)

    @override
    async def identity(self) -> Identity:
        return await self._below.identity()


async def opened(store: Forgetful, watches: int) -> None:
    """Returns when so many watches were opened in all. Hangs where they never are."""
    import asyncio

    while len(store.watches) < watches:
        await asyncio.sleep(0)
