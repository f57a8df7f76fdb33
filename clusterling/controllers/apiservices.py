"""Keeps the APIServices of custom kinds: one for each version of a group that a cluster's own definitions serve.

What a cluster serves is what its catalog says, so nothing is compared but names; those of built-in kinds are in the
underlay, shown where the kinds are. Of an APIService that is not marked as looked after nothing is touched.
Upstream: kubernetes pkg/controlplane/controller/crdregistration, kube-aggregator pkg/controllers/autoregister.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.reach import (
    CLUSTERS,
    EVERYTHING,
    PLAIN_DELETE,
    QUIET,
    Clusters,
    context,
    edit,
    of_other_packs,
    place,
    reach,
)
from clusterling.controllers.runtime import Controller
from clusterling.machinery.meta import Object
from clusterling.registry.catalog import Catalog
from clusterling.registry.cluster import Cluster
from clusterling.registry.crd import GROUP as DEFINITIONS
from clusterling.registry.resource import Served
from clusterling.storage.store import Event
from clusterling.tenancy.underlay import UNDERLAY_ID

GROUP: Final = "apiregistration.k8s.io"
PLURAL: Final = "apiservices"

_DEFINED: Final = f"{DEFINITIONS}/customresourcedefinitions/"
_KEPT: Final = f"{GROUP}/{PLURAL}/"


class ApiServiceController(Controller[str]):
    """Its keys are the ids of clusters: many definitions made at once are one look."""

    name = "apiservices"
    workers = 2
    collections = frozenset({_DEFINED.rstrip("/"), _KEPT.rstrip("/"), CLUSTERS})

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    @override
    def keys(self, event: Event) -> Iterable[str]:
        if _DEFINED not in event.key and _KEPT not in event.key:
            changed = of_other_packs(event)
            return () if changed is None else (changed,)
        where = place(event.key)
        if where is None or where.cluster == UNDERLAY_ID or where.group not in (DEFINITIONS, GROUP):
            return ()
        return (where.cluster,)

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[str]:
        async for cluster_id in self._clusters.ids(_DEFINED, _KEPT, of=cluster):
            yield cluster_id

    @override
    async def reconcile(self, key: str) -> float | None:
        reached = await reach(self._clusters, key, GROUP, PLURAL)
        if reached is None:
            return None
        cluster, served = reached
        # Where the kind is served its pack is loaded, and this with it.
        from clusterling.packs.apiregistration import is_of_custom_kinds, of_custom_kinds

        listed = (await cluster.objects.list(served, "", EVERYTHING)).values
        present: dict[str, Object] = {one["metadata"]["name"]: one for one in map(orjson.loads, listed)}
        wanted = {
            made["metadata"]["name"]: made
            for made in (of_custom_kinds(*of) for of in _custom_versions(cluster.catalog))
        }
        for name, obj in present.items():
            if is_of_custom_kinds(obj):
                await _bring_into_order(cluster, served, obj, wanted.get(name))
        for name, obj in wanted.items():
            if name not in present:
                await cluster.objects.create(context(cluster), served, "", obj, QUIET)
        return None


def _custom_versions(catalog: Catalog) -> Iterable[tuple[str, str]]:
    for group, versions in catalog.group_versions:
        for version in versions:
            if not any(one.resource.builtin for one in catalog.served_in(group, version)):
                yield group, version


async def _bring_into_order(cluster: Cluster, served: Served, obj: Object, wanted: Object | None) -> None:
    if wanted is None:
        metadata = obj["metadata"]
        exactly = replace(PLAIN_DELETE, uid=metadata["uid"])
        await cluster.objects.delete(context(cluster), served, "", metadata["name"], exactly)
    elif obj["spec"] != wanted["spec"]:
        obj["spec"] = wanted["spec"]
        await edit(cluster, served, obj)
