"""What the controllers share that see the deletion of one kind through: which objects concern them, and reading one.

Such an object has a deletionTimestamp and waits, by a finalizer of the controller's own, until what belongs to it is gone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from typing_extensions import override

from clusterling.controllers.reach import Clusters, Place, key_of, place, reach
from clusterling.controllers.runtime import Controller
from clusterling.machinery.meta import Object
from clusterling.registry.cluster import Cluster
from clusterling.registry.resource import Served
from clusterling.storage.store import Event


@dataclass(frozen=True, slots=True)
class Doomed:
    """An object that is being deleted, by its cluster's id and its name: these kinds are cluster-scoped."""

    cluster: str
    name: str


class DeletionController(Controller[Doomed]):
    """Calls `finish` for each object of one kind that is being deleted, until it is gone."""

    group: str
    plural: str
    # The id of the one cluster whose objects are meant; "" for those of every cluster. A tenant may define a kind
    # of any name, so a kind of `root` is looked for nowhere else.
    home: str = ""

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        self.collections = frozenset({f"{self.group or 'core'}/{self.plural}"})

    @abstractmethod
    async def finish(self, cluster: Cluster, served: Served, obj: Object) -> float | None:
        """As `Controller.reconcile`, for the object as it is now (`ObjectStore.outline`)."""

    @override
    def keys(self, event: Event) -> Iterable[Doomed]:
        if self.plural not in event.key or event.entry is None:
            return ()
        where = place(event.key)
        if where is None or (where.group, where.plural) != (self.group, self.plural):
            return ()
        if (self.home and where.cluster != self.home) or b'"deletionTimestamp"' not in event.entry.value:
            return ()
        return (Doomed(where.cluster, where.name),)

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[Doomed]:
        prefix = f"{self.group or 'core'}/{self.plural}/"
        async for cluster_id in self._clusters.ids(prefix, of=cluster):
            if self.home and cluster_id != self.home:
                continue
            async for entry in self._clusters.rows(cluster_id, prefix):
                if b'"deletionTimestamp"' in entry.value:
                    yield Doomed(cluster_id, entry.key.rpartition("/")[2])

    @override
    def entry_of(self, key: Doomed) -> str:
        return key_of(Place(key.cluster, self.group, self.plural, "", key.name))

    @override
    async def reconcile(self, key: Doomed) -> float | None:
        reached = await reach(self._clusters, key.cluster, self.group, self.plural)
        if reached is None:
            return None
        cluster, served = reached
        obj = await cluster.objects.outline(served, "", key.name)
        if obj is None or "deletionTimestamp" not in obj["metadata"]:
            return None
        return await self.finish(cluster, served, obj)
