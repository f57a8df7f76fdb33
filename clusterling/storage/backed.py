"""A complete store over a backend: its reads, the batcher's writes, the feed's watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from clusterling.storage.backend import Backend
from clusterling.storage.batcher import Batcher
from clusterling.storage.feed import Feed
from clusterling.storage.metered import Figures
from clusterling.storage.question import Question, Questions
from clusterling.storage.store import Entry, Guard, Identity, Limit, Op, Page, Unavailable, Usage, Watch

# Writers to a store of this process's own, whose commits take a millisecond: to wait for each other takes them longer.
FEW: Final = 8


class BackedStore:
    """What every backend's `open` yields. `shared`: other processes may have the same store open."""

    def __init__(self, backend: Backend, *, shared: bool = True) -> None:
        self.shared = shared
        self._backend = backend
        # For metrics: what is asked of the backend, what is written, what is followed.
        self.figures = Figures()
        self.batcher = Batcher(backend, few=0 if shared else FEW)
        self.feed = Feed(backend)
        self._questions = Questions(backend.fresh, self.feed)
        # As `others.py` has it; None where the backend cannot tell.
        self.others: Callable[[], int] | None = getattr(backend, "others", None)
        self._closed = False
        backend.follow(self.feed.publish, self.feed.lose)

    async def get(self, key: str) -> Entry | None:
        self._check_open()
        with self.figures.call("get"):
            return await self._backend.get(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        self._check_open()
        with self.figures.call("list"):
            return await self._backend.list(prefix, after=after, limit=limit, revision=revision)

    async def count(self, prefix: str) -> int:
        self._check_open()
        with self.figures.call("count"):
            return await self._backend.count(prefix)

    async def usage(self, prefix: str) -> Sequence[Usage]:
        self._check_open()
        with self.figures.call("usage"):
            return await self._backend.usage(prefix)

    def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Coroutine[Any, Any, Sequence[int]]:
        return self.batcher.write(ops, guards, limits)

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return self.feed.watch(prefix, after=after)

    def head(self) -> int:
        return self.feed.revision

    def fresh(self) -> Question:
        return self._questions.next()

    async def compact(self, horizon: int) -> None:
        self._check_open()
        with self.figures.call("compact"):
            await self._backend.compact(horizon)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        self._check_open()
        with self.figures.call("drop"):
            await self._backend.drop(prefix, guards)

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        self._check_open()
        with self.figures.call("expired"):
            return await self._backend.expired(now, limit)

    async def forget(self) -> None:
        """Lets go of what is remembered only to be quicker, so that memory around it can be given back."""
        self.feed.forget()
        forget = getattr(self._backend, "forget", None)
        if forget is not None:
            await forget()

    async def identity(self) -> Identity:
        self._check_open()
        with self.figures.call("identity"):
            return await self._backend.identity()

    async def _run(self) -> None:
        await self.batcher.run()

    async def _close(self) -> None:
        self._closed = True
        self.batcher.close()
        self.feed.close()
        await self._questions.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")


@asynccontextmanager
async def serve(backend: Backend, *, shared: bool = True) -> AsyncIterator[BackedStore]:
    """Runs a store over `backend` while the context lasts, then closes both.

    What is being committed at the end is seen through; what waits for its turn is refused.
    """
    store = BackedStore(backend, shared=shared)
    committing = asyncio.get_running_loop().create_task(store._run(), name="storage batcher")
    try:
        yield store
    finally:
        await store._close()
        try:
            await committing
        finally:
            await backend.close()
