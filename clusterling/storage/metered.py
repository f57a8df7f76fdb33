"""A Store that counts what is asked of it. The figures are plain dicts; exporting them is somebody else's part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from types import TracebackType

from clusterling.storage.histogram import Histogram
from clusterling.storage.store import Entry, Guard, Identity, Limit, Op, Page, Store, Usage, Watch
from clusterling.telemetry.spans import as_part, current


class Figures:
    """Totals by method of Store, since the start. Several stores may add to the same figures."""

    def __init__(self) -> None:
        self.durations: dict[str, Histogram] = {}  # Seconds from call to answer, waiting included.
        self.errors: dict[
            tuple[str, str], int
        ] = {}  # By method and class of the StorageError, or of what else it was.
        self.value_bytes_written = 0
        self.entries_listed = 0
        self.watches = 0  # Open now.

    @property
    def calls(self) -> dict[str, int]:
        return {method: taken.count for method, taken in self.durations.items()}

    @property
    def seconds(self) -> dict[str, float]:
        return {method: taken.total for method, taken in self.durations.items()}

    def count(self, method: str, seconds: float, error: type[BaseException] | None = None) -> None:
        """Counts one call."""
        taken = self.durations.get(method)
        if taken is None:
            taken = self.durations[method] = Histogram()
        taken.observe(seconds)
        if error is not None:
            what = (method, error.__name__)
            self.errors[what] = self.errors.get(what, 0) + 1

    def call(self, method: str) -> Call:
        """Counts the call that is the body of the context."""
        return Call(self, method)


class Call:
    """Counts one call, around its body, and tells a trace of it."""

    __slots__ = ("_figures", "_method", "_part", "_start")

    def __init__(self, figures: Figures, method: str) -> None:
        self._figures = figures
        self._method = method

    def __enter__(self) -> None:
        above = current()
        self._part = None if above is None else as_part(above.child(f"store {self._method}"))
        if self._part is not None:
            self._part.__enter__()
        self._start = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._figures.count(self._method, perf_counter() - self._start, kind)
        if self._part is not None:
            self._part.__exit__(kind, error, trace)


class MeteredStore:
    def __init__(self, store: Store, figures: Figures | None = None) -> None:
        self.figures = Figures() if figures is None else figures
        self._store = store

    async def get(self, key: str) -> Entry | None:
        with self.figures.call("get"):
            return await self._store.get(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        with self.figures.call("list"):
            page = await self._store.list(prefix, after=after, limit=limit, revision=revision)
        self.figures.entries_listed += len(page.entries)
        return page

    async def count(self, prefix: str) -> int:
        with self.figures.call("count"):
            return await self._store.count(prefix)

    async def usage(self, prefix: str) -> Sequence[Usage]:
        with self.figures.call("usage"):
            return await self._store.usage(prefix)

    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        with self.figures.call("write"):
            revisions = await self._store.write(ops, guards, limits)
        self.figures.value_bytes_written += sum(len(op.value) for op in ops if op.value is not None)
        return revisions

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return self._watch(prefix, after)

    def head(self) -> int:
        return self._store.head()

    async def fresh(self) -> int:
        with self.figures.call("fresh"):
            return await self._store.fresh()

    async def compact(self, horizon: int) -> None:
        with self.figures.call("compact"):
            await self._store.compact(horizon)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        with self.figures.call("drop"):
            await self._store.drop(prefix, guards)

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        with self.figures.call("expired"):
            return await self._store.expired(now, limit)

    async def identity(self) -> Identity:
        with self.figures.call("identity"):
            return await self._store.identity()

    @asynccontextmanager
    async def _watch(self, prefix: str, after: int) -> AsyncIterator[Watch]:
        """The duration of a watch is that of putting it in place."""
        place = self._store.watch(prefix, after=after)
        with self.figures.call("watch"):
            watch = await place.__aenter__()
        self.figures.watches += 1
        try:
            yield watch
        finally:
            self.figures.watches -= 1
            await place.__aexit__(None, None, None)
