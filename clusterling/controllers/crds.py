"""Removes the instances of a CustomResourceDefinition that is being deleted, then lets it go.

Upstream: apiextensions-apiserver pkg/controller/finalizer/crd_finalizer.go.
"""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from clusterling.controllers.deletions import DeletionController
from clusterling.controllers.reach import EVERYTHING, PLAIN_DELETE, context, look_again_s, stored
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.machinery.timestamps import parse_rfc3339
from clusterling.packs.apiextensions import set_condition
from clusterling.registry.cluster import Cluster
from clusterling.registry.crd import CLEANUP_FINALIZER, GROUP, PLURAL, is_true, schema_fence
from clusterling.registry.resource import Served

# Upstream waits a minute for the instances to go before it says that they do not.
PATIENCE_S: Final = 60.0

_COMPLETED: Final = ("InstanceDeletionCompleted", "removed all instances")
_NEVER_SERVED: Final = ("NeverEstablished", "resource was never established")
_OTHERS: Final = ("OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
_UNDER_WAY: Final = ("InstanceDeletionInProgress", "CustomResource deletion is in progress")
_STUCK: Final = (
    "InstanceDeletionCheck",
    "could not confirm zero CustomResources remaining: context deadline exceeded",
)


class CrdController(DeletionController):
    name = "crds"
    workers = 2
    group = GROUP
    plural = PLURAL

    @override
    async def finish(self, cluster: Cluster, served: Served, obj: Object) -> float | None:
        metadata, spec = obj["metadata"], obj["spec"]
        if CLEANUP_FINALIZER not in (metadata.get("finalizers") or ()):
            return None
        instances = stored(cluster, spec["group"], spec["names"]["plural"])
        ended = _COMPLETED if is_true(obj, "Established") else _NEVER_SERVED
        # The names may be another CRD's, or a built-in kind's, whose objects are none of this one's.
        if instances is not None and instances.resource.guard_key != schema_fence(metadata["name"]):
            ended = _OTHERS if instances.resource.builtin else ended
            instances = None
        obj = await _say(cluster, served, obj, True, _UNDER_WAY if _is_young(cluster, obj) else _STUCK)
        if instances is not None:
            try:
                await cluster.objects.delete_collection(
                    context(cluster), instances, "", EVERYTHING, PLAIN_DELETE
                )
            except ApiError as error:
                why = f"could not issue all deletes: {error.message}"
                await _say(cluster, served, obj, True, ("InstanceDeletionFailed", why))
                raise
            left = (await cluster.objects.list(instances, "", EVERYTHING)).values
            if left:
                return look_again_s(len(left))
        metadata = obj["metadata"]
        metadata["finalizers"].remove(CLEANUP_FINALIZER)
        await _say(cluster, served, obj, False, ended)
        return None


def _is_young(cluster: Cluster, obj: Object) -> bool:
    began = parse_rfc3339(obj["metadata"]["deletionTimestamp"])
    return (cluster.ports.clock.now() - began).total_seconds() < PATIENCE_S


async def _say(cluster: Cluster, served: Served, obj: Object, holds: bool, why: tuple[str, str]) -> Object:
    """Writes whether the kind is being taken away, and what else of the object was changed; the object as it is then."""
    set_condition(obj, "Terminating", holds, *why, cluster.ports.clock.now())
    return await cluster.objects.amend(context(cluster, "status"), served, "", obj)
