"""One cluster's view of the store. The isolation boundary: what holds a Keyspace cannot name another cluster's keys.

Everything under `<cluster id>/` looks as if it were the whole store; revisions stay the store's own. Keys are checked
here once more, though their parts were checked where they came in: a segment that is empty, `.` or `..`
never reaches the store, so no joining of strings further up can leave the range.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from clusterling.storage.others import OTHERS
from clusterling.storage.store import (
    Batch,
    Entry,
    Event,
    Guard,
    GuardFailed,
    Identity,
    KeyExists,
    Limit,
    LimitReached,
    Op,
    Page,
    RevisionConflict,
    StorageError,
    Store,
    TooLarge,
    Usage,
    Watch,
)

_BAD_KEY: Final = re.compile("(?:^|/)\\.{0,2}(?:/|$)|[\x00\ud800-\udfff]")
_EDGES: Final = frozenset({"", ".", "/"})
_NAMING_A_KEY: Final = (KeyExists, RevisionConflict, GuardFailed, TooLarge)


def _is_plain(key: str) -> bool:
    """Whether the key is one of those, nearly all, in which nothing can be bad: a tenth of the price of looking for what it is."""
    return (
        key.isascii()
        and key.isprintable()
        and "//" not in key
        and "/." not in key
        and key[:1] not in _EDGES
        and key[-1:] != "/"
    )


class Keyspace:
    """A store of the keys under `<cluster_id>/`. Raises ValueError for a key that could mean anything else."""

    def __init__(self, store: Store, cluster_id: str) -> None:
        if "/" in cluster_id or _BAD_KEY.search(cluster_id):
            raise ValueError(f"not a cluster id: {cluster_id!r}")
        self._store = store
        self._prefix = cluster_id + "/"

    async def get(self, key: str) -> Entry | None:
        entry = await self._store.get(self._key(key))
        return None if entry is None else self._entry(entry)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        inside = self._range(prefix)
        page = await self._store.list(
            inside, after=after and self._prefix + after, limit=limit, revision=revision
        )
        return Page(
            [self._entry(entry) for entry in page.entries], page.revision, page.remaining, page.last_change
        )

    async def count(self, prefix: str) -> int:
        return await self._store.count(self._range(prefix))

    async def usage(self, prefix: str) -> Sequence[Usage]:
        cut = len(self._prefix)
        found = await self._store.usage(self._range(prefix))
        return [one._replace(collection=one.collection[cut:]) for one in found]

    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        key = self._key
        inside = [Op(key(op.key), op.value, op.expected, op.expires_at) for op in ops]
        holding = [
            guard if guard.key == OTHERS else Guard(key(guard.key), guard.revision) for guard in guards
        ]
        bounds = [Limit(self._range(limit.prefix), limit.what, limit.most) for limit in limits]
        try:
            return await self._store.write(inside, holding, bounds)
        except LimitReached as error:
            limit, *figures = error.args
            if limit in bounds:
                raise LimitReached(limits[bounds.index(limit)], *figures) from error
            raise
        except _NAMING_A_KEY as error:
            raise self._error(error) from error

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return _Stripped(self._store.watch(self._range(prefix), after=after), len(self._prefix))

    def head(self) -> int:
        return self._store.head()

    def fresh(self) -> Awaitable[int]:
        return self._store.fresh()

    async def compact(self, horizon: int) -> None:
        """History is the whole store's: this forgets it for every cluster."""
        await self._store.compact(horizon)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        holding = [Guard(self._key(guard.key), guard.revision) for guard in guards]
        try:
            await self._store.drop(self._range(prefix), holding)
        except GuardFailed as error:
            raise self._error(error) from error

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        """As the store's, of this cluster only; others' may be met on the way, so a scan, not for every second."""
        asked = limit
        while True:
            found = await self._store.expired(now, asked)
            own = [self._entry(entry) for entry in found if entry.key.startswith(self._prefix)]
            if len(own) >= limit or len(found) < asked:
                return own[:limit]
            asked *= 4

    async def identity(self) -> Identity:
        return await self._store.identity()

    def _key(self, key: str) -> str:
        if not _is_plain(key) and _BAD_KEY.search(key):
            raise ValueError(f"not a key: {key!r}")
        return self._prefix + key

    def _range(self, prefix: str) -> str:
        if prefix and (not prefix.endswith("/") or _BAD_KEY.search(prefix, 0, len(prefix) - 1)):
            raise ValueError(f"not a prefix: {prefix!r}")
        return self._prefix + prefix

    def _entry(self, entry: Entry) -> Entry:
        return Entry(entry.key[len(self._prefix) :], entry.value, entry.revision)

    def _error(self, error: StorageError) -> StorageError:
        return type(error)(str(error.args[0]).removeprefix(self._prefix))


class _Stripped:
    """A watch, and its context, whose keys have lost their first `cut` characters."""

    __slots__ = ("_below", "_cut", "_place")

    def __init__(self, place: AbstractAsyncContextManager[Watch], cut: int) -> None:
        self._place = place
        self._cut = cut
        self._below: Watch

    async def __aenter__(self) -> Watch:
        self._below = await self._place.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._place.__aexit__(None, None, None)

    @property
    def revision(self) -> int:
        return self._below.revision

    def take(self) -> Batch | None:
        batch = self._below.take()
        return None if batch is None else self._strip(batch)

    def notify(self, callback: Callable[[], None]) -> None:
        self._below.notify(callback)

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        return self._strip(await anext(self._below))

    def _strip(self, batch: Batch) -> Batch:
        return Batch([self._event(event) for event in batch.events], batch.revision)

    def _event(self, event: Event) -> Event:
        entry = None if event.entry is None else self._entry(event.entry)

        def previous() -> Entry | None:
            before = event.previous()
            return None if before is None else self._entry(before)

        return Event(event.revision, event.key[self._cut :], entry, previous, dropped=event.dropped)

    def _entry(self, entry: Entry) -> Entry:
        return Entry(entry.key[self._cut :], entry.value, entry.revision)
