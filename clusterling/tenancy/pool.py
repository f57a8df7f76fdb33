"""ClusterPool: the logical clusters being served right now, built at first use and let go when idle.

Only what a request touched is here; thousands of idle clusters are rows in the store and entries in the directory.
This is where a cluster's isolation is put together: whatever serves it holds a `CachedStore` over an `Overlay` over
a `Keyspace`, and so cannot name another cluster's keys.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from clusterling.machinery.errors import go_quote, service_unavailable
from clusterling.machinery.meta import rfc3339
from clusterling.registry import views
from clusterling.registry.admission import Admission
from clusterling.registry.catalog import Catalog
from clusterling.registry.choice import Choice, Choices
from clusterling.registry.cluster import SUSPENDED, Cluster
from clusterling.registry.ports import Ports
from clusterling.storage.cache import CacheBudget, CachedStore
from clusterling.storage.guarded import Guarded
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.overlay import Overlay
from clusterling.storage.store import Entry, Store, Unavailable
from clusterling.tenancy import underlay
from clusterling.tenancy.directory import Directory, Record
from clusterling.tenancy.names import ROOT_ID, fence_key
from clusterling.tenancy.quota import Limited, Quotas
from clusterling.tenancy.trimming import trim
from clusterling.tenancy.underlay import Underlay

SERVED_MAX: Final = 2_000
IDLE_S: Final = 300.0
SWEEP_EVERY_S: Final = 30.0
MANY: Final = 500  # Clusters that are gone: then their memory is worth a pause,
GIVE_BACK_EVERY_S: Final = 10.0  # once for so long no more have gone,
VERY_MANY: Final = 100 * MANY  # or at the latest.
PAGE_ENTRIES: Final = 200
CURRENT_S: Final = 5.0  # How long controllers wait for a directory that is behind.


class ClusterPool:
    """Finds the served cluster of a name or id. `run` closes those that are gone or idle."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        *,
        choices: Choices,
        root: Choice,
        below: Underlay,
        ports: Ports,
        admission: Admission,
        budget: CacheBudget,
        quotas: Quotas,
        forget: Callable[[], Awaitable[None]] | None = None,
        clearing: Callable[[], bool] | None = None,
    ) -> None:
        """`store` sees the whole server. `choices` say what a cluster serves, `root` what `root` serves, `below` holds what all begin with.

        `forget` lets go of what others remember only to be quicker. It is asked to before the memory of many clusters is given back,
        and that is when none of their data are being removed any more, as `clearing` tells.
        """
        self._store = store
        self._directory = directory
        self._choices = choices
        self._root = root
        self._underlay = below
        self._underlay_reads = CachedStore(below.store, budget=budget, barrier=False)
        self._ports = ports
        self._admission = admission
        self._budget = budget
        self._quotas = quotas
        self._forget = forget
        self._clearing = clearing
        self._served: dict[str, Cluster] = {}
        # Served no more, and still to be closed.
        self._leaving: deque[Cluster] = deque()
        self._some_leave = asyncio.Event()
        self._left = 0  # Since it was last looked whether memory is to be given back.
        directory.listen(self._heard)

    def __len__(self) -> int:
        """How many clusters are being served now."""
        return len(self._served)

    async def find(self, name: str) -> Cluster | None:
        """The cluster of that name; `ready()` before use. None only after the store was asked (decision 12).

        Here and below nobody asks how far the store has come: a request has passed its barrier before (services/barrier.py).
        """
        record = self._directory.known(name) or await self._directory.named(name)
        return None if record is None else self._serve(record)

    async def by_id(self, cluster_id: str) -> Cluster | None:
        """The cluster of that id, ready to serve; None once it is being deleted or was never there. Raises Unavailable.

        For those who come by no request: this is their barrier. Raises ApiError 503 where nobody may write.
        """
        await self._store.fresh()
        await self._known()
        record = self._directory.by_id(cluster_id)
        if record is None:
            return None
        if record.access:
            # Whoever works here by itself waits as it does for a store that is away.
            raise service_unavailable(f"logical cluster {record.name} is {record.access}")
        cluster = self._serve(record)
        await cluster.ready()
        return cluster

    async def ids(self, *holding: str, of: str = "") -> AsyncIterator[str]:
        """The ids of all logical clusters, `root` included. Raises Unavailable.

        `holding`: of those only that have objects of their own under one of these prefixes of their keys, as the store's
        totals know: a hundred thousand idle clusters are passed over without a look at each. `of`: that one alone, if it is there.
        """
        await self._known()
        if of:
            if self._directory.by_id(of) is not None:
                yield of
            return
        if not holding:
            for record in self._directory.records():
                yield record.id
            return
        last = ""
        for number, one in enumerate(await self._store.usage("")):
            cluster_id, _, collection = one.collection.partition("/")
            if number % PAGE_ENTRIES == 0:
                await asyncio.sleep(0)
            if cluster_id != last and one.objects and collection.startswith(holding):
                last = cluster_id
                if self._directory.by_id(cluster_id) is not None:
                    yield cluster_id

    async def rows(self, cluster_id: str, prefix: str = "") -> AsyncIterator[Entry]:
        """A cluster's own entries under a prefix of its keys, as they are in the store. Raises Unavailable.

        Page by page, and past all that serves clusters: to look through ten thousand of them takes no memory.
        """
        keys, after = Keyspace(self._store, cluster_id), ""
        while True:
            page = await keys.list(prefix, after=after, limit=PAGE_ENTRIES)
            for entry in page.entries:
                yield entry
            if len(page.entries) < PAGE_ENTRIES:
                return
            after = page.entries[-1].key

    async def _known(self) -> None:
        """Waits a moment for a directory that is behind: by it alone is said here that a cluster is not there."""
        if self._directory.is_current:
            return
        try:
            async with asyncio.timeout(CURRENT_S):
                await self._directory.ready()
        except TimeoutError as error:
            raise Unavailable("the logical clusters are not known now") from error

    def _serve(self, record: Record) -> Cluster:
        cluster = self._served.get(record.id)
        if cluster is None:
            cluster = self._served[record.id] = self._build(record)
        cluster.used_at = self._ports.clock.monotonic()
        return cluster

    def _build(self, record: Record) -> Cluster:
        store, fence = self._store, None
        if record.id != ROOT_ID:
            store = fence = Guarded(store, f"{ROOT_ID}/{fence_key(record.id)}")
            store = Limited(fence, record.name, record.id, self._quotas)

        def derive(key: str, value: bytes) -> bytes:
            return underlay.derived(key, value, uid=record.uid, created_at=record.created_at)

        choice = self._root if record.id == ROOT_ID else self._choices.of(record.packs)
        below = underlay.Showing(self._underlay_reads, choice.collections, choice.groups)
        records = Overlay(Keyspace(store, record.id), self._underlay.store, derive, reads=below)
        cluster = Cluster(
            record.name,
            record.id,
            CachedStore(
                records,
                finish=views.finish,
                budget=self._budget,
                barrier=False,
                turn=self._ports.turns(record.id),
            ),
            records,
            base=partial(self._loaded, choice),
            ports=self._ports,
            admission=self._admission,
        )
        cluster.fence = fence
        self._tell_of(cluster, record)
        return cluster

    def _tell_of(self, cluster: Cluster, record: Record) -> None:
        """Lets a served cluster know what its record says of it."""
        cluster.access = record.access
        lifetime, clock = record.lifetime, self._ports.clock
        if lifetime is None:
            cluster.warning = None
            return

        def warning() -> str:
            if clock.now().timestamp() < lifetime.warns_at:
                return ""
            end = rfc3339(datetime.fromtimestamp(lifetime.expires_at, UTC))
            return f"logical cluster {go_quote(record.name)} is deleted at {end} unless it is renewed"

        cluster.warning = warning

    async def _loaded(self, choice: Choice) -> Catalog:
        """The catalog, and what clusters that serve it begin with in its place."""
        catalog = await choice.loaded()
        await self._underlay.install(choice.packs)
        return catalog

    def _heard(self, old: Record | None, new: Record | None) -> None:
        """A cluster that is gone from the directory, suspended, or serves other kinds now, is not served a moment longer as it was."""
        if old is None:
            return
        if new is None or new.id != old.id or new.packs != old.packs or _is_shut(old, new):
            self._let_go(old.id)
        elif (served := self._served.get(old.id)) is not None:
            if new.access != old.access and served.fence is not None:
                served.fence.forget()
            self._tell_of(served, new)

    def _let_go(self, cluster_id: str) -> None:
        self._left += 1
        cluster = self._served.pop(cluster_id, None)
        if cluster is not None:
            # Its watches end before its data go: nobody takes that for deletions of objects.
            cluster.store.end()
            self._leaving.append(cluster)
            self._some_leave.set()

    async def run(self) -> None:
        """Closes what is served no more and lets go of idle clusters, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep(), name="pool-sweep")
            group.create_task(self._close_leaving(), name="pool-close")
            group.create_task(self._give_back(), name="pool-give-back")

    async def _close_leaving(self) -> None:
        while True:
            self._some_leave.clear()
            while self._leaving:
                await self._leaving[0].aclose()
                self._leaving.popleft()
            await self._some_leave.wait()

    async def _sweep(self) -> None:
        """Lets go of clusters without watches that nobody asked for in a while."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            now = self._ports.clock.monotonic()
            excess = len(self._served) - SERVED_MAX
            for cluster_id, cluster in list(self._served.items()):
                idle = now - cluster.used_at
                if cluster.is_busy or cluster_id == ROOT_ID:
                    continue
                if idle >= IDLE_S or (excess > 0 and idle >= SWEEP_EVERY_S):
                    self._let_go(cluster_id)
                    excess -= 1

    async def _give_back(self) -> None:
        """Has memory given back when many clusters have gone: what is made while they go lies among what was theirs.

        And once more a little later: what is made anew by then lies together.
        """
        gone = 0
        again = False
        while True:
            await asyncio.sleep(GIVE_BACK_EVERY_S)
            left, self._left = self._left, 0
            gone += left
            is_over = not left and not (self._clearing is not None and self._clearing())
            many = gone >= MANY and not self._leaving and (is_over or gone >= VERY_MANY)
            if not many and not again:
                continue
            again = many
            gone = 0
            root = self._served.get(ROOT_ID)
            if root is not None:
                # Of clusters that went, in the main.
                root.store.forget_windows()
            if self._forget is not None:
                await self._forget()
            await trim()

    async def aclose(self) -> None:
        """Lets go of everything, once `run` has ended."""
        self._leaving.extend(self._served.values())
        self._served.clear()
        while self._leaving:
            await self._leaving.popleft().aclose()
        await self._underlay_reads.close()


def _is_shut(old: Record, new: Record) -> bool:
    """Whether the cluster is being suspended by this change: nothing that is open there goes on."""
    return new.access == SUSPENDED != old.access
