"""Removes the instances of a CustomResourceDefinition that is being deleted, then lets it go.

Upstream: apiextensions-apiserver pkg/controller/finalizer/crd_finalizer.go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.reach import EVERYTHING, PLAIN_DELETE, Clusters, context, edit, place, stored
from clusterling.controllers.runtime import Controller
from clusterling.storage.store import Event

FINALIZER: Final = "customresourcecleanup.apiextensions.k8s.io"
GROUP: Final = "apiextensions.k8s.io"
PLURAL: Final = "customresourcedefinitions"
LOOK_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Key:
    cluster: str
    name: str


class CrdController(Controller[Key]):
    name = "crds"
    workers = 2

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    @override
    def keys(self, event: Event) -> Iterable[Key]:
        if PLURAL not in event.key or event.entry is None:
            return ()
        where = place(event.key)
        if where is None or where.plural != PLURAL or b'"deletionTimestamp"' not in event.entry.value:
            return ()
        return (Key(where.cluster, where.name),)

    @override
    async def walk(self) -> AsyncIterator[Key]:
        async for cluster_id in self._clusters.ids():
            cluster = await self._clusters.by_id(cluster_id)
            served = stored(cluster, GROUP, PLURAL) if cluster else None
            if cluster is None or served is None:
                continue
            for value in (await cluster.objects.list(served, "", EVERYTHING)).values:
                metadata = orjson.loads(value)["metadata"]
                if "deletionTimestamp" in metadata:
                    yield Key(cluster_id, metadata["name"])

    @override
    async def reconcile(self, key: Key) -> float | None:
        cluster = await self._clusters.by_id(key.cluster)
        served = stored(cluster, GROUP, PLURAL) if cluster else None
        if cluster is None or served is None:
            return None
        crd = await cluster.objects.read(served, "", key.name)
        if crd is None or FINALIZER not in (crd["metadata"].get("finalizers") or ()):
            return None
        if "deletionTimestamp" not in crd["metadata"]:
            return None
        instances = stored(cluster, crd["spec"]["group"], crd["spec"]["names"]["plural"])
        if instances is not None and instances.resource.guard_key.endswith(f"/{key.name}"):
            await cluster.objects.delete_collection(context(cluster), instances, "", EVERYTHING, PLAIN_DELETE)
            if (await cluster.objects.list(instances, "", EVERYTHING)).values:
                return LOOK_AGAIN_S
        crd["metadata"]["finalizers"].remove(FINALIZER)
        await edit(cluster, served, crd)
        return None
