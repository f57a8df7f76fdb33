"""A way to a store that refuses what it is told to, for as often or as long as it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from typing_extensions import override

from clusterling.storage.backend import Lost, Sink
from clusterling.storage.guarded import Guarding
from clusterling.storage.memory import MemoryBackend
from clusterling.storage.store import (
    Entry,
    Guard,
    Limit,
    Op,
    Page,
    StorageError,
    Store,
    Unavailable,
    Watch,
)


class GappedBackend(MemoryBackend):
    """A backend that can be told of a gap: every watch ends with Compacted, as after a store was put back."""

    @override
    def follow(self, sink: Sink, lost: Lost) -> None:
        super().follow(sink, lost)
        self._told = lost

    def gap(self) -> None:
        self._told(self.head())


class Troubled(Guarding):
    """`errors` are raised by the next calls, one each; while it is `cut`, every call is refused."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.errors: list[StorageError] = []
        self.cut = False
        self.calls = 0

    def fail(self, errors: Iterable[StorageError]) -> None:
        self.errors.extend(errors)

    @override
    async def added(self) -> Sequence[Guard]:
        return ()

    @override
    async def get(self, key: str) -> Entry | None:
        self._check()
        return await super().get(key)

    @override
    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        self._check()
        return await super().list(prefix, after=after, limit=limit, revision=revision)

    @override
    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        self._check()
        return await super().write(ops, guards, limits)

    @override
    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        self._check()
        await super().drop(prefix, guards)

    @override
    async def fresh(self) -> int:
        self._check()
        return await super().fresh()

    @override
    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return self._watch(prefix, after)

    @asynccontextmanager
    async def _watch(self, prefix: str, after: int) -> AsyncIterator[Watch]:
        self._check()
        async with super().watch(prefix, after=after) as watch:
            yield watch

    def _check(self) -> None:
        self.calls += 1
        if self.cut:
            raise Unavailable("cut off")
        if self.errors:
            raise self.errors.pop(0)
