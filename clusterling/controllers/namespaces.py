"""Empties namespaces that are being deleted, then lets them go. Upstream: pkg/controller/namespace/deletion."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.deletions import DeletionController
from clusterling.controllers.reach import EVERYTHING, PLAIN_DELETE, context, edit, look_again_s
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, rfc3339
from clusterling.registry.cluster import Cluster
from clusterling.registry.resource import Served

FINALIZER: Final = "kubernetes"
DECODED_AT_ONCE: Final = 100


class NamespaceController(DeletionController):
    name = "namespaces"
    workers = 4
    group = ""
    plural = "namespaces"

    @override
    async def finish(self, cluster: Cluster, served: Served, obj: Object) -> float | None:
        finalizers = obj.get("spec", {}).get("finalizers") or ()
        if FINALIZER not in finalizers:
            return None
        remaining = await _empty(cluster, obj["metadata"]["name"])
        if remaining.total:
            await _tell(cluster, served, obj, remaining)
            return look_again_s(remaining.total)
        obj["spec"]["finalizers"] = [finalizer for finalizer in finalizers if finalizer != FINALIZER]
        await edit(cluster, served, obj, "finalize")
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
            for at, value in enumerate(left):
                if at % DECODED_AT_ONCE == 0:
                    await asyncio.sleep(0)
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
