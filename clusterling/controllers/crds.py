"""Removes the instances of a CustomResourceDefinition that is being deleted, then lets it go.

Upstream: apiextensions-apiserver pkg/controller/finalizer/crd_finalizer.go.
"""

from __future__ import annotations

from typing_extensions import override

from clusterling.controllers.deletions import DeletionController
from clusterling.controllers.reach import EVERYTHING, PLAIN_DELETE, context, edit, look_again_s, stored
from clusterling.machinery.meta import Object
from clusterling.registry.cluster import Cluster
from clusterling.registry.crd import CLEANUP_FINALIZER, GROUP, PLURAL, schema_fence
from clusterling.registry.resource import Served


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
        # The names may be another CRD's, or a built-in kind's, whose objects are none of this one's.
        if instances is not None and instances.resource.guard_key == schema_fence(metadata["name"]):
            await cluster.objects.delete_collection(context(cluster), instances, "", EVERYTHING, PLAIN_DELETE)
            left = (await cluster.objects.list(instances, "", EVERYTHING)).values
            if left:
                return look_again_s(len(left))
        metadata["finalizers"].remove(CLEANUP_FINALIZER)
        await edit(cluster, served, obj)
        return None
