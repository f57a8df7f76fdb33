"""Removes the data of a logical cluster that is being deleted, then lets its object go.

The cluster left the directory, and its fence the store, when its object got a deletionTimestamp: nobody can write
under its id any more, so going through it once is enough (decisions 1 and 4). Its watches ended at that moment too: nobody
takes what goes now for deletions of objects. So many clusters are cleared at once as share a commit, and leave room in it for
what tenants write.
"""

from __future__ import annotations

from typing_extensions import override

from clusterling.controllers.deletions import DeletionController
from clusterling.controllers.reach import QUIET, Clusters
from clusterling.machinery.meta import Object
from clusterling.registry.cluster import Cluster
from clusterling.registry.resource import Served
from clusterling.storage.clearing import clear
from clusterling.storage.store import Store
from clusterling.tenancy.authentication.tokens import IssuedTokens
from clusterling.tenancy.cluster import CONTROLLER, FINALIZER, GROUP, PLURAL
from clusterling.tenancy.names import ROOT_ID


class ClusterController(DeletionController):
    name = "clusters"
    workers = 24
    group = GROUP
    plural = PLURAL
    home = ROOT_ID

    def __init__(self, store: Store, clusters: Clusters, tokens: IssuedTokens) -> None:
        """`store` sees the whole server: what belonged to the cluster is removed from it."""
        super().__init__(clusters)
        self._store = store
        self._tokens = tokens

    @override
    async def finish(self, cluster: Cluster, served: Served, obj: Object) -> float | None:
        metadata = obj["metadata"]
        if FINALIZER not in (metadata.get("finalizers") or ()):
            return None
        cluster_id = obj["status"]["id"]
        await self._tokens.revoke_all(cluster_id)
        await clear(self._store, f"{cluster_id}/")
        metadata["finalizers"].remove(FINALIZER)
        await cluster.objects.update(cluster.context(CONTROLLER), served, "", metadata["name"], obj, QUIET)
        return None
