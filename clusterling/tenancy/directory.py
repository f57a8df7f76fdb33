"""Directory: which logical cluster a name means, current in every replica, fed by a watch of `root`'s objects.

Rules of this file
- The watch's callback applies events at once, so whoever's write returned finds the directory knowing it.
- "There is none" is said only after the store was asked (decision 12): another replica may have just made it.
- While the watch is down nothing that is known counts: the store is asked for every name.
- A cluster being deleted is gone from here the moment its object says so; its data go later (decision 1).
- What is kept of a cluster is kept a hundred thousand times: a few hundred bytes, and nothing that the garbage collector has
  to look at. They are read page by page, so that to know them all takes no more memory than they do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Final

from msgspec import Struct
from msgspec.json import Decoder

from clusterling.machinery.meta import Object
from clusterling.machinery.names import ClusterName
from clusterling.registry.cluster import READ_ONLY, SUSPENDED
from clusterling.storage.backoff import Backoff
from clusterling.storage.store import Entry, StorageError, Store, Watch
from clusterling.tenancy.lifetimes import Lifetime, lifetime_of
from clusterling.tenancy.quota import Quota, quota_of

_log = logging.getLogger(__name__)

COLLECTION: Final = "tenancy.clusterling.io/logicalclusters/"
_PREFIX: Final = f"{COLLECTION}-/"
_SHARED_MAX: Final = 128
_PAGE: Final = 2_000
_SLICE: Final = 500  # Makes some milliseconds; then others may run.


class Record(Struct, frozen=True, gc=False):
    """One logical cluster as requests need it. `revision` is that of its object in `root`, `created_at` its metav1.Time.

    `packs`: which kinds it serves, where not those of the server. `access`: `SUSPENDED`, `READ_ONLY`, or "".
    `lifetime`: when it ends, where it does by itself.
    `quota`: what it says itself.
    """

    id: str
    name: str
    uid: str
    revision: int
    created_at: str
    packs: tuple[str, ...] | None
    access: str = ""
    lifetime: Lifetime | None = None
    quota: Quota | None = None


# Called with the record before and after: (None, new) it appeared, (old, new) it changed, (old, None) it is gone.
# Called on the event loop; it must not fail and must not wait.
Listener = Callable[[Record | None, Record | None], None]


def key_of(name: str) -> str:
    """Where the object of that logical cluster lives in `root`'s keyspace."""
    return f"{_PREFIX}{name}"


class _Metadata(Struct, rename="camel"):
    name: str
    uid: str
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None


class _Status(Struct, rename="camel"):
    id: str = ""
    expires_at: str | None = None


class _Stored(Struct):
    """What a record is made of, of a LogicalCluster's JSON: the rest is passed over where it stands."""

    metadata: _Metadata
    spec: Object | None = None
    status: _Status | None = None


_decode: Final = Decoder(_Stored).decode


def _record_of(entry: Entry) -> Record | None:
    """The record of a stored LogicalCluster, None where it is being deleted or not yet a cluster."""
    stored = _decode(entry.value)
    metadata, spec, status = stored.metadata, stored.spec or {}, stored.status
    if metadata.deletion_timestamp or status is None or not status.id:
        return None
    packs = spec.get("packs")
    return Record(
        id=status.id,
        name=metadata.name,
        uid=metadata.uid,
        revision=entry.revision,
        created_at=_same_text(metadata.creation_timestamp),
        packs=None if packs is None else _shared(tuple(packs)),
        access=access_of(spec),
        lifetime=lifetime_of(spec, {"expiresAt": status.expires_at}) if spec else None,
        quota=quota_of(spec) if spec else None,
    )


def access_of(spec: Object) -> str:
    """What the spec of a LogicalCluster lets nobody do, or nobody but those who read."""
    if spec.get("suspended"):
        return SUSPENDED
    return READ_ONLY if spec.get("access") == READ_ONLY else ""


@lru_cache(_SHARED_MAX)
def _same_text(text: str) -> str:
    """One string for all clusters that were made in the same second."""
    return text


@lru_cache(_SHARED_MAX)
def _shared(packs: tuple[str, ...]) -> tuple[str, ...]:
    """One tuple for all clusters that say the same: it is a sixth of what an idle cluster takes."""
    return packs


class Directory:
    """ClusterName → Record. `find` is a request's question; `run` keeps the answers current.

    `store` is `root`'s keyspace.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_name: dict[str, Record] = {}
        self._by_id: dict[str, Record] = {}
        self._listeners: list[Listener] = []
        self._watch: Watch | None = None
        self._revision = 0
        self._fallen_behind = asyncio.Event()
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._by_name)

    def records(self) -> tuple[Record, ...]:
        """All clusters that are served, in no particular order."""
        return tuple(self._by_name.values())

    def listen(self, listener: Listener) -> None:
        """Tells `listener` of every change from now on."""
        self._listeners.append(listener)

    def known(self, name: str) -> Record | None:
        """The record if it is at hand and current. None says nothing: ask `find`."""
        return self._by_name.get(name) if self._watch is not None else None

    def by_id(self, cluster_id: str) -> Record | None:
        """The record of a cluster's id if it is at hand."""
        return self._by_id.get(cluster_id)

    async def named(self, name: str) -> Record | None:
        """As `find`, for a name as a request has it, which may be none at all."""
        record = self._by_name.get(name)
        if record is not None and self._watch is not None:
            return record
        try:
            return await self.find(ClusterName.parse(name))
        except ValueError:
            return None

    async def find(self, name: ClusterName) -> Record | None:
        """The cluster of that name; None: at some moment since the call there was none. Raises Unavailable."""
        record = self._by_name.get(name)
        if record is not None and self._watch is not None:
            return record
        entry = await self._store.get(key_of(name))
        if self._watch is None:
            # Nobody tells what changes: what was known may be long gone, and only this answer counts.
            return None if entry is None else _record_of(entry)
        if entry is not None and entry.revision > self._revision:
            # The watch has not come this far; what it brings later is newer still, or this very write.
            self._apply(name, entry)
        return self._by_name.get(name)

    async def ask(self, name: str) -> bool:
        """Whether the store has an object of that name now. Costs what `find` does for a name nobody has."""
        return await self._store.get(key_of(name)) is not None

    @property
    def is_current(self) -> bool:
        """Changes are being heard of. While they are not, every name is asked for in the store."""
        return self._watch is not None

    async def ready(self) -> None:
        """Returns once all clusters are known, and changes are being heard of."""
        await self._ready.wait()

    async def run(self) -> None:
        """Keeps the directory current until cancelled, however often the store goes away and comes back."""
        backoff = Backoff()
        while True:
            try:
                revision = await self._load()
                async with self._watching(revision) as watch:
                    self._begin(watch)
                    backoff.success()
                    await self._fallen_behind.wait()
                _log.warning("directory-fell-behind revision=%d", self._revision)
            except StorageError as error:
                _log.info("directory-put-off error=%r", error)
            finally:
                self._stop_hearing()
            await backoff.wait()

    def _watching(self, revision: int) -> AbstractAsyncContextManager[Watch]:
        return self._store.watch(_PREFIX, after=revision)

    def _begin(self, watch: Watch) -> None:
        self._watch = watch
        self._fallen_behind.clear()
        watch.notify(self._drain)
        self._drain()
        self._ready.set()

    def _stop_hearing(self) -> None:
        self._watch = None
        self._ready.clear()
        self._fallen_behind.set()

    async def _load(self) -> int:
        """Makes everything known what the store has, which may be an older state than was known: it was put back."""
        gone = set(self._by_name)
        after, revision = "", 0
        while True:
            page = await self._store.list(_PREFIX, after=after, limit=_PAGE, revision=revision)
            revision = page.revision
            for number, entry in enumerate(page.entries):
                if number % _SLICE == 0:
                    await asyncio.sleep(0)
                name = entry.key.removeprefix(_PREFIX)
                gone.discard(name)
                known = self._by_name.get(name)
                if known is None or known.revision != entry.revision:
                    self._replace(name, _record_of(entry))
            if len(page.entries) < _PAGE:
                break
            after = page.entries[-1].key
        for name in gone:
            self._replace(name, None)
        self._revision = revision
        return revision

    def _drain(self) -> None:
        """Applies what the watch has. Called by the watch itself, between a commit and its answer."""
        if self._watch is None:
            return
        try:
            while (batch := self._watch.take()) is not None:
                for event in batch.events:
                    if event.dropped:
                        for name in tuple(self._by_name):
                            self._apply(name, None)
                    else:
                        self._apply(event.key.removeprefix(_PREFIX), event.entry)
                self._revision = batch.revision
        except StorageError:
            # From this moment on, not only from when `run` has its turn.
            self._stop_hearing()

    def _apply(self, name: str, entry: Entry | None) -> None:
        old = self._by_name.get(name)
        if old is not None and entry is not None and entry.revision <= old.revision:
            return
        self._replace(name, None if entry is None else _record_of(entry))

    def _replace(self, name: str, new: Record | None) -> None:
        old = self._by_name.get(name)
        if old is None and new is None:
            return
        if old is not None and (new is None or new.id != old.id):
            del self._by_name[name], self._by_id[old.id]
        if new is not None:
            self._by_name[new.name] = self._by_id[new.id] = new
        if old is not None and new is not None and old.id != new.id:
            self._tell(old, None)
            self._tell(None, new)
        else:
            self._tell(old, new)

    def _tell(self, old: Record | None, new: Record | None) -> None:
        for listener in self._listeners:
            listener(old, new)
