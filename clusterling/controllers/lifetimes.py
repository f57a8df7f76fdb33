"""Ends logical clusters whose time is over, and warns of it before.

One heap of times, fed by the directory: a cluster that waits for its end costs an entry, and nothing is done for it
until then. It is the leader's work; one who takes over begins with what the directory knows, so nothing is forgotten.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from typing import Final

from clusterling.controllers import events
from clusterling.controllers.reach import QUIET, Clusters, context, reach
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, rfc3339
from clusterling.registry.cluster import Cluster
from clusterling.registry.options import DeleteOptions
from clusterling.registry.ports import Clock
from clusterling.registry.resource import Served
from clusterling.storage.store import StorageError
from clusterling.tenancy.cluster import EXPIRING, GROUP, PLURAL, set_condition
from clusterling.tenancy.directory import Directory, Record
from clusterling.tenancy.lifetimes import lifetime_of
from clusterling.tenancy.names import ROOT_ID

logger = logging.getLogger(__name__)

EVERY_S: Final = 1.0
AT_ONCE: Final = 20  # Clusters that are ended together.
AGAIN_S: Final = 5  # After a failure.
PROTECTED_AGAIN_S: Final = 600  # A cluster that is protected from deletion outlives its time.
COMPONENT: Final = "clusterling-lifetimes"


class Lifetimes:
    """The clusters that end by themselves, by when there is something to do about them."""

    def __init__(self, directory: Directory, clusters: Clusters, clock: Clock) -> None:
        self._directory = directory
        self._clusters = clusters
        self._clock = clock
        self._heap: list[tuple[int, str]] = []
        # The earliest time that the heap has for a cluster: what else it has of it is passed over.
        self._due: dict[str, int] = {}
        self._runs = False
        directory.listen(self._heard)

    def __len__(self) -> int:
        return len(self._due)

    def _heard(self, old: Record | None, new: Record | None) -> None:
        if not self._runs:
            return
        if new is None:
            if old is not None:
                self._due.pop(old.id, None)
        elif new.lifetime is not None and (old is None or old.lifetime != new.lifetime):
            self._put(new.id, new.lifetime.warns_at)

    def _put(self, cluster_id: str, due: int) -> None:
        """Has the cluster looked at then, or before where it is to be already: what it finds says when next."""
        if self._due.get(cluster_id, due + 1) > due:
            self._due[cluster_id] = due
            heapq.heappush(self._heap, (due, cluster_id))

    async def run(self) -> None:
        """Looks every second until cancelled."""
        self._heap.clear()
        self._due.clear()
        self._runs = True
        try:
            for record in self._directory.records():
                if record.lifetime is not None:
                    self._put(record.id, record.lifetime.warns_at)
            while True:
                while await self.step():
                    pass
                await asyncio.sleep(EVERY_S)
        finally:
            self._runs = False

    async def step(self) -> int:
        """Looks at some clusters whose time has come; returns how many those were."""
        now = self._clock.now().timestamp()
        taken: list[str] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < AT_ONCE:
            due, cluster_id = heapq.heappop(self._heap)
            if self._due.get(cluster_id) == due:
                del self._due[cluster_id]
                taken.append(cluster_id)
        async with asyncio.TaskGroup() as group:
            for cluster_id in taken:
                group.create_task(self._look_at(cluster_id))
        return len(taken)

    async def _look_at(self, cluster_id: str) -> None:
        record = self._directory.by_id(cluster_id)
        if record is None or record.lifetime is None:
            return
        try:
            next_at = await self._bring_on(record)
        except (ApiError, StorageError) as error:
            logger.info("lifetime-put-off cluster=%s error=%s", record.name, error)
            next_at = int(self._clock.now().timestamp()) + AGAIN_S
        if next_at is not None:
            self._put(cluster_id, next_at)

    async def _bring_on(self, record: Record) -> int | None:
        """Warns, or deletes, as the object now says; when to look again, None where it is gone or going."""
        reached = await reach(self._clusters, ROOT_ID, GROUP, PLURAL)
        obj = await reached[0].objects.read(reached[1], "", record.name) if reached else None
        if reached is None or obj is None or obj["metadata"]["uid"] != record.uid:
            return None
        cluster, served = reached
        lifetime = lifetime_of(obj["spec"], obj["status"])
        if lifetime is None or "deletionTimestamp" in obj["metadata"]:
            return None
        now = int(self._clock.now().timestamp())
        if now < lifetime.warns_at:
            return lifetime.warns_at
        if now < lifetime.expires_at:
            await self._warn(cluster, served, obj)
            return lifetime.expires_at
        if obj["spec"].get("deletionProtection"):
            why = "its time is over, and it is protected from deletion"
            await _tell(cluster, obj, "DeletionProtected", why)
            return now + PROTECTED_AGAIN_S
        # At this very revision: who renews it at the last moment has renewed it.
        only = DeleteOptions(uid=record.uid, resource_version=obj["metadata"]["resourceVersion"])
        await cluster.objects.delete(context(cluster), served, "", record.name, only)
        logger.info("cluster-expired cluster=%s id=%s", record.name, record.id)
        await _tell(cluster, obj, "Expired", "its time was over, and it is being deleted")
        return None

    async def _warn(self, cluster: Cluster, served: Served, obj: Object) -> None:
        why = f"the cluster is deleted at {obj['status']['expiresAt']} unless it is renewed"
        await _tell(cluster, obj, EXPIRING, why)
        if set_condition(obj, EXPIRING, "Ttl", why, rfc3339(self._clock.now())):
            name = obj["metadata"]["name"]
            await cluster.objects.update(context(cluster, "status"), served, "", name, obj, QUIET)


async def _tell(cluster: Cluster, obj: Object, reason: str, message: str) -> None:
    """Says it in an Event of `root`, once of this end of this cluster."""
    occasion = f"{reason}/{obj['status']['expiresAt']}"
    warns = reason != "Expired"
    await events.tell(cluster, obj, reason, message, component=COMPONENT, occasion=occasion, warns=warns)
