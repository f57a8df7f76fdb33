"""Cluster: one logical cluster while it is being served: its cache, its catalog, its verbs.

Built at a cluster's first request and dropped when it has been idle; nothing here outlives the process, and an
idle cluster has none. The catalog follows the cluster's CustomResourceDefinitions: a watch on them marks it stale
and the next request builds another, reusing the Resource of each CRD that did not change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final

import orjson

from clusterling.machinery.errors import ApiError
from clusterling.machinery.schema import LARGE_BYTES
from clusterling.registry import views
from clusterling.registry.admission import Admission
from clusterling.registry.catalog import Catalog
from clusterling.registry.crd import (
    GROUP,
    PLURAL,
    SCHEMA_FENCES,
    CustomResourceStrategy,
    decoded,
    is_true,
    resource_of,
    schema_fence,
)
from clusterling.registry.objects import ObjectStore
from clusterling.registry.ports import Ports
from clusterling.registry.resource import Resource
from clusterling.registry.strategy import Context, User
from clusterling.storage.cache import CachedStore
from clusterling.storage.guarded import Guarded
from clusterling.storage.store import Entry, StorageError, Store, Watch

logger = logging.getLogger(__name__)

CRDS: Final = f"{GROUP}/{PLURAL}/"

# What a logical cluster lets nobody do, or nobody but those who read; "" is everything allowed.
SUSPENDED: Final = "Suspended"
READ_ONLY: Final = "ReadOnly"
_NOTHING: Final = Catalog(())  # What is served by a cluster that is not ready yet.


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A CRD's Resource, and what it was made from: equal `source` means the same Resource still holds.

    `written` are the revisions of the CRD and of its fence: while both stand, nothing has to be read at all.
    """

    written: tuple[int, int]
    source: tuple[int, bytes]
    resource: Resource | None


class Cluster:
    """A served logical cluster. `ready()` before `catalog`, at each request: it is nearly free when nothing changed."""

    def __init__(
        self,
        name: str,
        cluster_id: str,
        store: CachedStore,
        records: Store,
        *,
        base: Callable[[], Awaitable[Catalog]],
        ports: Ports,
        admission: Admission,
    ) -> None:
        """`store` is the cluster's cache; `records` the same keys without it, for what is read once and not again.

        `base` gives the built-in kinds, when the cluster is first made ready.
        """
        self.name = name
        self.id = cluster_id
        self.ports = ports
        self.objects = ObjectStore(store, records, admission, ports.clock)
        self.store = store
        self.catalog = _NOTHING
        # These are kept by whoever serves the cluster: what nobody may do, and what its writes depend on.
        self.access = ""
        self.fence: Guarded | None = None
        # What its users are to be warned of, if it were asked now; "" nothing.
        self.warning: Callable[[], str] | None = None
        self.used_at = (
            0.0  # Monotonic seconds of the last request, kept by whoever decides what stays served.
        )
        self._base_of = base
        self._base: Catalog | None = None
        self._has_crds = False
        self._stale = True
        self._building = asyncio.Lock()
        self._compiled: dict[str, _Compiled] = {}
        # The watch of its CRDs, while there is one, and what ends it.
        self._crds: Watch | None = None
        self._following: AbstractAsyncContextManager[Watch] | None = None

    @property
    def is_busy(self) -> bool:
        """Someone is in the middle of something here."""
        return self.objects.in_use

    def context(self, user: User, *, dry_run: bool = False, subresource: str = "") -> Context:
        """What a hook gets to know of a request by `user`."""
        return Context(
            user, self.name, self.id, self.objects, self.catalog, self.ports, dry_run, [], subresource
        )

    async def ready(self) -> None:
        """Brings the catalog up to the cluster's CRDs. Raises Unavailable."""
        # A catalog that is being built is not stale any more, and not here yet.
        if not self._stale and not self._building.locked():
            return
        async with self._building:
            while self._stale:
                try:
                    await self._build()
                except BaseException:
                    # What it was is not known to hold: the next request looks again.
                    self._stale = self._base is None or self._has_crds
                    raise

    async def aclose(self) -> None:
        """Lets go of the cluster's watch and cache. Open client watches end."""
        self._has_crds = False
        await self._unfollow()
        await self.store.close()

    async def _build(self) -> None:
        # First, and whatever else: a cluster that was closed while it was stale has nothing left to be built.
        self._stale = False
        base = self._base
        if base is None:
            base = await self._base_of()
            self._base = self.catalog = base
            self._has_crds = base.find(GROUP, "v1", PLURAL) is not None
        if self._has_crds:
            await self._build_on(base)

    async def _build_on(self, base: Catalog) -> None:
        await self._follow()
        page = await self.store.list(CRDS)
        revisions = await self._schema_revisions() if page.entries else {}
        compiled = {}
        for entry in page.entries:
            name = entry.key.rpartition("/")[2]
            known = self._compiled.get(name)
            compiled[name] = found = self._compile(entry, name, revisions.get(name, 0))
            if found is not known and len(entry.value) > LARGE_BYTES:
                await self.store.turn()
        self._compiled = compiled
        resources = [one.resource for one in compiled.values() if one.resource is not None]
        self.catalog = Catalog(resources, parent=base) if resources else base
        self.objects.wake_watches()

    async def _follow(self) -> None:
        """Has the next change of a CRD mark the catalog stale; what came before is in the list that follows."""
        if self._crds is not None:
            try:
                while self._crds.take() is not None:
                    pass
                return
            except StorageError:
                await self._unfollow()
        page = await self.store.list(CRDS)
        following = self.store.watch(CRDS, after=page.revision)
        self._crds = await following.__aenter__()
        self._following = following
        self._crds.notify(self._changed)

    async def _unfollow(self) -> None:
        following, self._following, self._crds = self._following, None, None
        if following is not None:
            await following.__aexit__(None, None, None)

    async def _schema_revisions(self) -> dict[str, int]:
        """By the names of CRDs. Asked for only where there are some: most clusters have none, and so do without this collection."""
        fences = (await self.store.list(SCHEMA_FENCES)).entries
        return {fence.key.rpartition("/")[2]: fence.revision for fence in fences}

    def _compile(self, entry: Entry, name: str, schema_revision: int) -> _Compiled:
        known = self._compiled.get(name)
        written = (entry.revision, schema_revision)
        if known is not None and known.written == written:
            return known
        crd = views.outline(entry, entry.value, decoded)
        status = crd.get("status", {})
        established = is_true(crd, "Established")
        terminating = is_true(crd, "Terminating") or "deletionTimestamp" in crd["metadata"]
        deciding = [status.get("acceptedNames"), established, terminating]
        source = (schema_revision, orjson.dumps(deciding, option=orjson.OPT_SORT_KEYS))
        if known is not None and known.source == source:
            return replace(known, written=written)
        if not established:
            return _Compiled(written, source, None)
        try:
            resource = resource_of(
                crd,
                schema_revision=schema_revision,
                guard_key=schema_fence(name),
                strategy=CustomResourceStrategy(),
            )
        except (ApiError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Stored CRDs were validated; one that an older release accepted must not take the others down.
            logger.warning("crd-unusable cluster=%s crd=%s error=%s", self.name, name, error)
            return _Compiled(written, source, None)
        if terminating:
            resource = replace(resource, terminating=True)
        return _Compiled(written, source, resource)

    def _changed(self) -> None:
        self._stale = self._has_crds
        self.objects.wake_watches()
