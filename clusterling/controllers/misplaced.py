"""Owners that are in another namespace than their dependent, and so are none: told of in Events, as upstream does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import orjson

from clusterling.controllers.reach import QUIET, context
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, rfc3339
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
    events = cluster.catalog.find("", "v1", "events")
    namespace = obj["metadata"].get("namespace", "")
    for reference in lost:
        served = owner_kind(cluster, reference)
        if served is None or not served.resource.namespaced or events is None:
            continue
        if await _is_elsewhere(cluster, served, reference["uid"], namespace):
            event = _event(obj, reference, rfc3339(cluster.ports.clock.now()))
            # It was said before; or its namespace takes no more.
            with suppress(ApiError):
                await cluster.objects.create(
                    context(cluster), events, event["metadata"]["namespace"], event, QUIET
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


def _event(obj: Object, reference: Object, now: str) -> Object:
    metadata = obj["metadata"]
    namespace = metadata.get("namespace", "")
    owner = f"{reference['apiVersion']}/{reference['kind']}, namespace: {namespace}, name: {reference['name']}, uid: {reference['uid']}"
    about = {
        "kind": obj["kind"],
        "namespace": namespace,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "apiVersion": obj["apiVersion"],
    }
    # One name for one thing said: it is not said again while it stands.
    mark = hashlib.blake2b(f"{metadata['uid']}/{reference['uid']}".encode(), digest_size=8).hexdigest()
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{mark}", "namespace": namespace or "default"},
        "involvedObject": {key: value for key, value in about.items() if value},
        "reason": "OwnerRefInvalidNamespace",
        "message": f'ownerRef [{owner}] does not exist in namespace "{namespace}"',
        "source": {"component": COMPONENT},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": "Warning",
        "eventTime": None,
        "reportingComponent": COMPONENT,
        "reportingInstance": "",
    }
