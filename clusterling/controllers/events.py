"""What controllers tell people: Events about objects, each said once."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from clusterling.controllers.reach import QUIET, context
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, rfc3339
from clusterling.registry.cluster import Cluster


async def tell(
    cluster: Cluster,
    obj: Object,
    reason: str,
    message: str,
    *,
    component: str,
    occasion: str,
    warns: bool = True,
) -> None:
    """Says something of an object in an Event of its namespace; of one in none, in `default`.

    `occasion`: what makes it another thing said of this object than what was said before. What was is not said again while
    its Event stands. Where Events are not served, or the namespace takes no more, nobody is told.
    """
    events = cluster.catalog.find("", "v1", "events")
    if events is None:
        return
    now = rfc3339(cluster.ports.clock.now())
    metadata = obj["metadata"]
    namespace = metadata.get("namespace", "")
    about = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "namespace": namespace,
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    mark = hashlib.blake2b(f"{metadata['uid']}/{occasion}".encode(), digest_size=8).hexdigest()
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{mark}", "namespace": namespace or "default"},
        "involvedObject": {key: value for key, value in about.items() if value},
        "reason": reason,
        "message": message,
        "type": "Warning" if warns else "Normal",
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "eventTime": None,
    }
    with suppress(ApiError):
        await cluster.objects.create(context(cluster), events, namespace or "default", event, QUIET)
