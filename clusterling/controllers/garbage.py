"""The garbage collector: objects whose owners are gone go too; owners wait for, or let go of, their dependents.

Three things bring an object here: it was deleted (its dependents are looked at), it is being deleted with `orphan` or
`foregroundDeletion` among its finalizers, or it was written with owner references (its owners are looked for).
Dependents are found by the index in the store (registry/owners.py), so there is no graph to build or to hold.

Upstream: pkg/controller/garbagecollector/garbagecollector.go. An owner is what its reference says: kind, name, the
dependent's own namespace (or none, for a cluster-scoped kind) and uid; a namesake with another uid is not the owner.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import orjson
from typing_extensions import override

from clusterling.controllers.reach import Clusters, context, edit, place, stored
from clusterling.controllers.runtime import Controller
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.registry import owners
from clusterling.registry.cluster import Cluster
from clusterling.registry.deleting import FOREGROUND, ORPHAN
from clusterling.registry.options import DeleteOptions, Propagation
from clusterling.registry.owners import Dependent
from clusterling.registry.resource import Served
from clusterling.storage.store import Event

logger = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 0.5

Fate = Literal["solid", "absent", "waiting", "unknown"]


@dataclass(frozen=True, slots=True)
class Gone:
    """An object was removed: whoever named it as owner is to be looked at."""

    cluster: str
    uid: str


@dataclass(frozen=True, slots=True)
class Present:
    """An object is there and may have owners to check, or dependents to let go of before it goes."""

    cluster: str
    object: Dependent


class GarbageCollector(Controller[Gone | Present]):
    name = "garbage"
    workers = 4

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        # Most clusters never see an owner reference: there a deletion concerns nobody, and costs one look at a set.
        # A cluster is in `_owning` from its first index record on, whatever was found before.
        self._owning: set[str] = set()
        self._ownerless: set[str] = set()

    @override
    def keys(self, event: Event) -> Iterable[Gone | Present]:
        where = place(event.key)
        if where is None or event.dropped:
            self._note(event)
            return ()
        if event.entry is None:
            if where.cluster in self._ownerless and where.cluster not in self._owning:
                return ()
            previous = event.previous()
            uid = orjson.loads(previous.value)["metadata"].get("uid") if previous is not None else None
            return (Gone(where.cluster, uid),) if uid else ()
        if not _concerns(event.entry.value):
            return ()
        return (Present(where.cluster, Dependent(where.group, where.plural, where.namespace, where.name)),)

    def _note(self, event: Event) -> None:
        cluster, _, rest = event.key.partition("/")
        if event.dropped and not rest:
            self._owning.discard(cluster)
            self._ownerless.discard(cluster)
        elif rest.startswith(owners.OWNERS):
            self._owning.add(cluster)

    @override
    async def walk(self) -> AsyncIterator[Gone | Present]:
        async for cluster_id in self._clusters.ids():
            async for entry in self._clusters.rows(cluster_id):
                where = place(f"{cluster_id}/{entry.key}")
                if where is not None and _concerns(entry.value):
                    yield Present(
                        cluster_id, Dependent(where.group, where.plural, where.namespace, where.name)
                    )

    @override
    async def reconcile(self, key: Gone | Present) -> float | None:
        cluster = await self._clusters.by_id(key.cluster)
        if cluster is None:
            return None
        if isinstance(key, Gone):
            if key.cluster not in self._owning and not await cluster.objects.has_dependents():
                self._ownerless.add(key.cluster)
                return None
            async for dependent in cluster.objects.dependents(key.uid):
                await _look_at(cluster, dependent)
            return None
        return await _look_at(cluster, key.object)


def _concerns(value: bytes) -> bool:
    return b'"ownerReferences"' in value or (
        b'"deletionTimestamp"' in value and (b'"orphan"' in value or b'"foregroundDeletion"' in value)
    )


async def _look_at(cluster: Cluster, where: Dependent) -> float | None:
    """Brings one object into order; seconds until it should be looked at again, or None."""
    served = stored(cluster, where.group, where.plural)
    obj = await cluster.objects.read(served, where.namespace, where.name) if served else None
    if served is None or obj is None:
        return None
    metadata = obj["metadata"]
    finalizers = metadata.get("finalizers") or ()
    if "deletionTimestamp" in metadata:
        if ORPHAN in finalizers:
            return await _orphan(cluster, served, obj)
        if FOREGROUND in finalizers:
            return await _foreground(cluster, served, obj)
        return None
    return await _check_owners(cluster, served, obj)


async def _check_owners(cluster: Cluster, served: Served, obj: Object) -> float | None:
    """Deletes an object whose owners are all gone; drops dangling references where one is left."""
    references = obj["metadata"].get("ownerReferences") or ()
    if not references:
        return None
    namespace = obj["metadata"].get("namespace", "")
    fates = [(reference, await _fate(cluster, reference, namespace)) for reference in references]
    if any(fate == "unknown" for _, fate in fates):
        return None
    solid = [reference for reference, fate in fates if fate == "solid"]
    waiting = [reference for reference, fate in fates if fate == "waiting"]
    if solid:
        if len(solid) < len(references):
            obj["metadata"]["ownerReferences"] = solid
            await _edited(cluster, served, obj)
        return None
    if waiting and await _has_dependents(cluster, obj):
        if _blocks(references) and await _has_waiting_dependents(cluster, obj):
            # It may be in a circle of owners, each waiting for the next: this one blocks nobody any more.
            # The change brings it here again.
            obj["metadata"]["ownerReferences"] = [
                {**reference, "blockOwnerDeletion": False} for reference in references
            ]
            await _edited(cluster, served, obj)
            return None
        await _deleted(cluster, served, obj, "Foreground")
    else:
        await _deleted(cluster, served, obj, _propagation(obj))
    return None


def _blocks(references: Iterable[Object]) -> bool:
    return any(reference.get("blockOwnerDeletion") for reference in references)


def _propagation(obj: Object) -> Propagation:
    """What the object's finalizers ask for, or background: the default of a kind is for its users."""
    finalizers = obj["metadata"].get("finalizers") or ()
    if ORPHAN in finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in finalizers else "Background"


async def _fate(cluster: Cluster, reference: Object, namespace: str) -> Fate:
    """What became of an owner: there, gone, waiting for its dependents, or of a kind nobody here knows."""
    try:
        wanted = GroupVersion.parse(reference["apiVersion"])
    except ValueError:
        return "unknown"
    served = cluster.catalog.by_kind(wanted.group, wanted.version, reference["kind"])
    if served is None:
        return "unknown"
    if served.resource.namespaced and not namespace:
        logger.info(
            "owner-out-of-reach cluster=%s kind=%s name=%s: a cluster-scoped object names a namespaced owner",
            cluster.name,
            reference["kind"],
            reference["name"],
        )
        return "unknown"
    owner = await cluster.objects.read(
        served, namespace if served.resource.namespaced else "", reference["name"]
    )
    if owner is None or owner["metadata"]["uid"] != reference["uid"]:
        return "absent"
    return "waiting" if _waits(owner) else "solid"


async def _has_dependents(cluster: Cluster, obj: Object) -> bool:
    async for _ in cluster.objects.dependents(obj["metadata"]["uid"]):
        return True
    return False


async def _has_waiting_dependents(cluster: Cluster, obj: Object) -> bool:
    """A dependent of the object is itself waiting for its dependents to go."""
    async for _, dependent in _dependents(cluster, obj["metadata"]["uid"]):
        if _waits(dependent):
            return True
    return False


def _waits(obj: Object) -> bool:
    metadata = obj["metadata"]
    return "deletionTimestamp" in metadata and FOREGROUND in (metadata.get("finalizers") or ())


async def _dependents(cluster: Cluster, uid: str) -> AsyncIterator[tuple[Served, Object]]:
    """The objects that name this uid as an owner, as they are now."""
    async for where in cluster.objects.dependents(uid):
        served = stored(cluster, where.group, where.plural)
        dependent = await cluster.objects.read(served, where.namespace, where.name) if served else None
        if served is not None and dependent is not None:
            yield served, dependent


async def _foreground(cluster: Cluster, served: Served, owner: Object) -> float | None:
    """Deletes the dependents; lets the owner go when none is left that blocks it."""
    uid = owner["metadata"]["uid"]
    blocked = False
    async for dependent_served, dependent in _dependents(cluster, uid):
        references = dependent["metadata"].get("ownerReferences") or ()
        mine = [reference for reference in references if reference["uid"] == uid]
        blocked = blocked or _blocks(mine)
        if "deletionTimestamp" not in dependent["metadata"]:
            await _check_owners(cluster, dependent_served, dependent)
    if blocked:
        return LOOK_AGAIN_S
    owner["metadata"]["finalizers"].remove(FOREGROUND)
    await _edited(cluster, served, owner)
    return None


async def _orphan(cluster: Cluster, served: Served, owner: Object) -> float | None:
    """Takes the owner out of its dependents' references, then lets it go."""
    uid = owner["metadata"]["uid"]
    async for dependent_served, dependent in _dependents(cluster, uid):
        references = dependent["metadata"].get("ownerReferences") or ()
        kept = [reference for reference in references if reference["uid"] != uid]
        if kept:
            dependent["metadata"]["ownerReferences"] = kept
        else:
            dependent["metadata"].pop("ownerReferences", None)
        await edit(cluster, dependent_served, dependent)
    owner["metadata"]["finalizers"].remove(ORPHAN)
    await _edited(cluster, served, owner)
    return None


async def _edited(cluster: Cluster, served: Served, obj: Object) -> None:
    try:
        await edit(cluster, served, obj)
    except ApiError as error:
        if error.reason != "NotFound":
            raise


async def _deleted(cluster: Cluster, served: Served, obj: Object, propagation: Propagation) -> None:
    """Deletes exactly the object that was judged: this uid, this resourceVersion."""
    metadata = obj["metadata"]
    options = DeleteOptions(
        uid=metadata["uid"], resource_version=metadata["resourceVersion"], propagation=propagation
    )
    try:
        await cluster.objects.delete(
            context(cluster), served, metadata.get("namespace", ""), metadata["name"], options
        )
    except ApiError as error:
        if error.reason != "NotFound":
            raise
