"""Owners that are in another namespace than their dependent, and so are none: told of in Events, as upstream does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from clusterling.controllers import events
from clusterling.machinery.meta import Object
from clusterling.registry.cluster import Cluster
from clusterling.registry.options import ListOptions
from clusterling.registry.ownership import owner_kind
from clusterling.registry.resource import Served

SEARCHED_MAX: Final = 2_000  # Objects looked through for an owner that is in another namespace.
COMPONENT: Final = "garbage-collector-controller"


async def tell(cluster: Cluster, obj: Object, lost: Iterable[Object]) -> None:
    """Says in an Event that an owner is in another namespace, and so is none; of one owner, as upstream does.

    Upstream: graph_builder.go, reportInvalidNamespaceOwnerRef.
    """
    namespace = obj["metadata"].get("namespace", "")
    for reference in lost:
        served = owner_kind(cluster, reference)
        if served is None or not served.resource.namespaced:
            continue
        if await _is_elsewhere(cluster, served, reference["uid"], namespace):
            owner = (
                f"{reference['apiVersion']}/{reference['kind']}, namespace: {namespace}, "
                f"name: {reference['name']}, uid: {reference['uid']}"
            )
            why = f'ownerRef [{owner}] does not exist in namespace "{namespace}"'
            await events.tell(
                cluster,
                obj,
                "OwnerRefInvalidNamespace",
                why,
                component=COMPONENT,
                occasion=reference["uid"],
            )
            return


async def _is_elsewhere(cluster: Cluster, served: Served, uid: str, namespace: str) -> bool:
    """The object of that uid is in another namespace; of many of its kind only the first are looked through."""
    text = b'"uid":' + orjson.dumps(uid)
    listing = await cluster.objects.list(served, "", ListOptions(limit=SEARCHED_MAX))
    for value in listing.values:
        if text in value:
            metadata = orjson.loads(value)["metadata"]
            if metadata["uid"] == uid:
                return bool(metadata["namespace"] != namespace)
    return False
