"""A Store that counts what is asked of it. The figures are plain dicts; exporting them is somebody else's part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from types import TracebackType

from clusterling.storage.store import Entry, Guard, Identity, Op, Page, Store, Watch


class Figures:
    """Totals by method of Store, since the start. Several stores may add to the same figures."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.seconds: dict[str, float] = {}  # From call to answer, waiting included.
        self.errors: dict[
            tuple[str, str], int
        ] = {}  # By method and class of the StorageError, or of what else it was.
        self.value_bytes_written = 0
        self.entries_listed = 0
        self.watches = 0  # Open now.


class _Call:
    """Counts one call, around its body."""

    __slots__ = ("_figures", "_method", "_start")

    def __init__(self, figures: Figures, method: str) -> None:
        self._figures = figures
        self._method = method

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        figures, method = self._figures, self._method
        figures.calls[method] = figures.calls.get(method, 0) + 1
        figures.seconds[method] = figures.seconds.get(method, 0.0) + perf_counter() - self._start
        if kind is not None:
            what = (method, kind.__name__)
            figures.errors[what] = figures.errors.get(what, 0) + 1


class MeteredStore:
    def __init__(self, store: Store, figures: Figures | None = None) -> None:
        self.figures = Figures() if figures is None else figures
        self._store = store

    async def get(self, key: str) -> Entry | None:
        with _Call(self.figures, "get"):
            return await self._store.get(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        with _Call(self.figures, "list"):
            page = await self._store.list(prefix, after=after, limit=limit, revision=revision)
        self.figures.entries_listed += len(page.entries)
        return page

    async def count(self, prefix: str) -> int:
        with _Call(self.figures, "count"):
            return await self._store.count(prefix)

    async def write(self, ops: Sequence[Op], guards: Sequence[Guard] = ()) -> Sequence[int]:
        with _Call(self.figures, "write"):
            revisions = await self._store.write(ops, guards)
        self.figures.value_bytes_written += sum(len(op.value) for op in ops if op.value is not None)
        return revisions

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return self._watch(prefix, after)

    def head(self) -> int:
        return self._store.head()

    async def fresh(self) -> int:
        with _Call(self.figures, "fresh"):
            return await self._store.fresh()

    async def compact(self, horizon: int) -> None:
        with _Call(self.figures, "compact"):
            await self._store.compact(horizon)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        with _Call(self.figures, "drop"):
            await self._store.drop(prefix, guards)

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        with _Call(self.figures, "expired"):
            return await self._store.expired(now, limit)

    async def identity(self) -> Identity:
        with _Call(self.figures, "identity"):
            return await self._store.identity()

    @asynccontextmanager
    async def _watch(self, prefix: str, after: int) -> AsyncIterator[Watch]:
        """The duration of a watch is that of putting it in place."""
        place = self._store.watch(prefix, after=after)
        with _Call(self.figures, "watch"):
            watch = await place.__aenter__()
        self.figures.watches += 1
        try:
            yield watch
        finally:
            self.figures.watches -= 1
            await place.__aexit__(None, None, None)
