"""How controllers reach a logical cluster: by its id, as the system, through the same verbs as everybody."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final, NamedTuple, Protocol

import orjson

from clusterling.machinery.meta import Object
from clusterling.registry.cluster import Cluster
from clusterling.registry.options import DeleteOptions, ListOptions, WriteOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import SERVER, Context
from clusterling.storage.store import Compacted, Entry, Event
from clusterling.tenancy.cluster import GROUP, PLURAL
from clusterling.tenancy.names import ROOT_ID, fence_key
from clusterling.tenancy.underlay import UNDERLAY_ID

QUIET: Final = WriteOptions(field_validation="Ignore")
EVERYTHING: Final = ListOptions()
PLAIN_DELETE: Final = DeleteOptions()


_CLUSTERS: Final = f"{ROOT_ID}/{GROUP}/{PLURAL}/-/"
_FENCES: Final = f"{ROOT_ID}/{fence_key('')}"

LOOK_AGAIN_S: Final = 1.0
LOOK_AGAIN_MAX_S: Final = 60.0
_LOOKED_AT_A_SECOND: Final = 200


def look_again_s(remaining: int) -> float:
    """When to look again at what waits for so many objects: a tenant's hundred thousand finalizers are not walked each second."""
    return min(max(LOOK_AGAIN_S, remaining / _LOOKED_AT_A_SECOND), LOOK_AGAIN_MAX_S)


class Clusters(Protocol):
    """The logical clusters of this server, served on demand."""

    async def by_id(self, cluster_id: str) -> Cluster | None:
        """The cluster, ready to use; None once it is being deleted or was never there."""

    def ids(self, *holding: str, of: str = "") -> AsyncIterator[str]:
        """The ids of all logical clusters, or of those that have objects of their own under one of these prefixes.

        `of`: that one alone, if it is there, whatever it holds.
        """

    def rows(self, cluster_id: str, prefix: str = "") -> AsyncIterator[Entry]:
        """A cluster's own entries under a prefix of its keys, as stored, without serving it: for walks through all."""


# As `Controller.collections` names them: those of `ended` and of `of_other_packs`.
FENCES: Final = fence_key("").rpartition("/-/")[0]
CLUSTERS: Final = f"{GROUP}/{PLURAL}"


class Place(NamedTuple):
    """Where an event happened: a key of the store, taken apart. Shape: `<cluster>/<group>/<resource>/<ns>/<name>`."""

    cluster: str
    group: str
    plural: str
    namespace: str
    name: str


def place(key: str) -> Place | None:
    """The key taken apart; None for records that are not objects."""
    parts = key.split("/")
    if len(parts) != 5 or parts[1].startswith("~"):
        return None
    cluster, group, plural, namespace, name = parts
    if cluster.startswith("~") and cluster != UNDERLAY_ID:
        return None
    return Place(
        cluster, "" if group == "core" else group, plural, "" if namespace == "-" else namespace, name
    )


def key_of(where: Place) -> str:
    """The store's key of what is there."""
    return f"{where.cluster}/{where.group or 'core'}/{where.plural}/{where.namespace or '-'}/{where.name}"


def stored(cluster: Cluster, group: str, plural: str) -> Served | None:
    """The resource at its storage version, None where the cluster does not serve it."""
    resource = cluster.catalog.resource(group, plural)
    return None if resource is None else Served(resource, resource.version(resource.storage_version))


async def reach(
    clusters: Clusters, cluster_id: str, group: str, plural: str
) -> tuple[Cluster, Served] | None:
    """A cluster and one of its resources at its storage version; None where either is not there (any more)."""
    cluster = await clusters.by_id(cluster_id)
    served = stored(cluster, group, plural) if cluster else None
    return None if cluster is None or served is None else (cluster, served)


def context(cluster: Cluster, subresource: str = "") -> Context:
    return cluster.context(SERVER, subresource=subresource)


async def edit(cluster: Cluster, served: Served, obj: Object, subresource: str = "") -> None:
    """Writes back an object that was read, tied to the resourceVersion it was read at. Raises ApiError."""
    metadata = obj["metadata"]
    await cluster.objects.update(
        context(cluster, subresource), served, metadata.get("namespace", ""), metadata["name"], obj, QUIET
    )


def ended(event: Event) -> str | None:
    """The id of the logical cluster whose deletion begins with this change; None for all other events."""
    return event.key.removeprefix(_FENCES) if event.entry is None and event.key.startswith(_FENCES) else None


def of_other_packs(event: Event) -> str | None:
    """The id of the logical cluster that this change lets serve other kinds than before; None for all other events."""
    entry = event.entry
    if entry is None or not event.key.startswith(_CLUSTERS) or b'"deletionTimestamp"' in entry.value:
        return None
    with contextlib.suppress(Compacted):
        before = event.previous()
        if before is None or _packs(orjson.loads(before.value)) == _packs(orjson.loads(entry.value)):
            return None
    return str(orjson.loads(entry.value)["status"]["id"])


def _packs(cluster: Object) -> object:
    return (cluster.get("spec") or {}).get("packs")
