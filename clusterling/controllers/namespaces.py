"""Empties namespaces that are being deleted, then lets them go. Upstream: pkg/controller/namespace/deletion."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.reach import EVERYTHING, PLAIN_DELETE, Clusters, context, edit, place, stored
from clusterling.controllers.runtime import Controller
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, rfc3339
from clusterling.registry.cluster import Cluster
from clusterling.registry.resource import Served
from clusterling.storage.store import Event

FINALIZER: Final = "kubernetes"
LOOK_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Key:
    cluster: str
    name: str


class NamespaceController(Controller[Key]):
    name = "namespaces"
    workers = 4

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    @override
    def keys(self, event: Event) -> Iterable[Key]:
        if "/core/namespaces/" not in event.key or event.entry is None:
            return ()
        where = place(event.key)
        if where is None or b'"deletionTimestamp"' not in event.entry.value:
            return ()
        return (Key(where.cluster, where.name),)

    @override
    async def walk(self) -> AsyncIterator[Key]:
        async for cluster_id in self._clusters.ids():
            cluster = await self._clusters.by_id(cluster_id)
            served = stored(cluster, "", "namespaces") if cluster else None
            if cluster is None or served is None:
                continue
            for value in (await cluster.objects.list(served, "", EVERYTHING)).values:
                metadata = orjson.loads(value)["metadata"]
                if "deletionTimestamp" in metadata:
                    yield Key(cluster_id, metadata["name"])

    @override
    async def reconcile(self, key: Key) -> float | None:
        cluster = await self._clusters.by_id(key.cluster)
        served = stored(cluster, "", "namespaces") if cluster else None
        if cluster is None or served is None:
            return None
        namespace = await cluster.objects.read(served, "", key.name)
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return None
        if FINALIZER not in (namespace.get("spec", {}).get("finalizers") or ()):
            return None
        remaining = await _empty(cluster, key.name)
        if remaining.total:
            await _tell(cluster, served, namespace, remaining)
            return LOOK_AGAIN_S
        namespace["spec"]["finalizers"] = [
            finalizer for finalizer in namespace["spec"]["finalizers"] if finalizer != FINALIZER
        ]
        await edit(cluster, served, namespace, "finalize")
        return None


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left after a round of deleting: counts by resource and by finalizer, and what failed."""

    resources: dict[str, int]
    finalizers: dict[str, int]
    failures: Sequence[str]

    @property
    def total(self) -> int:
        return sum(self.resources.values()) + len(self.failures)


async def _empty(cluster: Cluster, namespace: str) -> Remaining:
    resources: dict[str, int] = {}
    finalizers: dict[str, int] = {}
    failures: list[str] = []
    for served in cluster.catalog.storage:
        if not served.resource.namespaced or "deletecollection" not in served.resource.verbs:
            continue
        try:
            await cluster.objects.delete_collection(
                context(cluster), served, namespace, EVERYTHING, PLAIN_DELETE
            )
        except ApiError as error:
            failures.append(f"{served.plural}.{served.group}: {error.message}")
        left = (await cluster.objects.list(served, namespace, EVERYTHING)).values
        if left:
            resources[f"{served.plural}.{served.group}"] = len(left)
            for value in left:
                for finalizer in orjson.loads(value)["metadata"].get("finalizers") or ():
                    finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
    return Remaining(resources, finalizers, failures)


async def _tell(cluster: Cluster, served: Served, namespace: Object, remaining: Remaining) -> None:
    """Says in the namespace's conditions what it still waits for. Upstream: status_condition_utils.go."""
    counts = ", ".join(
        f"{name} has {count} resource instances" for name, count in sorted(remaining.resources.items())
    )
    waits = ", ".join(
        f"{name} in {count} resource instances" for name, count in sorted(remaining.finalizers.items())
    )
    told = {
        "NamespaceDeletionDiscoveryFailure": (
            "",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        "NamespaceDeletionGroupVersionParsingFailure": (
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        "NamespaceDeletionContentFailure": (
            "; ".join(remaining.failures),
            "ContentDeletionFailed" if remaining.failures else "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        "NamespaceContentRemaining": (
            f"Some resources are remaining: {counts}" if counts else "",
            "SomeResourcesRemain" if counts else "ContentRemoved",
            "All content successfully removed",
        ),
        "NamespaceFinalizersRemaining": (
            f"Some content in the namespace has finalizers remaining: {waits}" if waits else "",
            "SomeFinalizersRemain" if waits else "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    }
    status = namespace.setdefault("status", {})
    before = {condition["type"]: condition for condition in status.get("conditions") or ()}
    now = rfc3339(cluster.ports.clock.now())
    conditions = []
    for kind, (problem, reason, fine) in told.items():
        condition = {
            "type": kind,
            "status": "True" if problem else "False",
            "reason": reason,
            "message": problem or fine,
        }
        known = before.get(kind, {})
        same = known.get("status") == condition["status"]
        conditions.append({**condition, "lastTransitionTime": known["lastTransitionTime"] if same else now})
    status["conditions"] = conditions
    await edit(cluster, served, namespace, "status")
