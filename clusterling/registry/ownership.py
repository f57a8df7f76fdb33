"""Owners and dependents, as the garbage collector judges them: what became of an owner, and whom an object waits for.

An owner is what its reference says: kind, name, the dependent's own namespace (or none, for a cluster-scoped kind) and
uid; a namesake with another uid is not the owner. Upstream: pkg/controller/garbagecollector/garbagecollector.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from clusterling.machinery.meta import GroupVersion, Object
from clusterling.registry.catalog import Catalog
from clusterling.registry.deleting import FOREGROUND
from clusterling.registry.objects import ObjectStore
from clusterling.registry.owners import Dependent
from clusterling.registry.resource import Served

# They come and go by themselves, and are nobody's dependents.
IGNORED: Final = frozenset({("", "events"), ("events.k8s.io", "events")})


class Cluster(Protocol):
    """The part of a served logical cluster that owners are looked for in."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def objects(self) -> ObjectStore: ...


class Fate(Enum):
    """What became of an owner."""

    SOLID = "there, and it stays for now"
    WAITING = "it is being deleted, once its dependents are gone"
    ABSENT = "not there"
    UNKNOWN = "of a kind that is not served"
    OUT_OF_REACH = "namespaced, and the object is not: it cannot be said which one is meant"


UNDECIDED: Final = frozenset({Fate.UNKNOWN, Fate.OUT_OF_REACH})


@dataclass(frozen=True, slots=True)
class Identity:
    """An object that is known to be gone, by all that a reference says of it but the version of its kind."""

    uid: str
    group: str
    kind: str
    namespace: str
    name: str

    def is_meant(self, reference: Object, namespace: str) -> bool:
        """A dependent in `namespace` ("" for none) names this object."""
        return (
            reference["uid"] == self.uid
            and reference["name"] == self.name
            and reference["kind"] == self.kind
            and reference["apiVersion"].rpartition("/")[0] == self.group
            and self.namespace in ("", namespace)
        )


def references(obj: Object) -> list[Object]:
    """The owner references of an object."""
    return obj["metadata"].get("ownerReferences") or []


def owner_kind(cluster: Cluster, reference: Object) -> Served | None:
    """The kind that a reference names; None where the cluster serves none of it."""
    try:
        wanted = GroupVersion.parse(reference["apiVersion"])
    except ValueError:
        return None
    return cluster.catalog.by_kind(wanted.group, wanted.version, reference["kind"])


def _serves_any(cluster: Cluster, reference: Object) -> bool:
    """The kind is served, in another version."""
    group = reference["apiVersion"].rpartition("/")[0]
    return any(
        one.group == group and one.names.kind == reference["kind"] for one in cluster.catalog.resources
    )


async def fate(cluster: Cluster, reference: Object, namespace: str, gone: Identity | None = None) -> Fate:
    """What became of the owner that a dependent in `namespace` names. `gone` is known not to be there any more."""
    served = owner_kind(cluster, reference)
    if served is None:
        # A kind that went with its objects is remembered by them.
        meant = gone is not None and gone.is_meant(reference, namespace)
        return Fate.ABSENT if meant and not _serves_any(cluster, reference) else Fate.UNKNOWN
    if served.resource.namespaced and not namespace:
        return Fate.OUT_OF_REACH
    place = namespace if served.resource.namespaced else ""
    owner = await cluster.objects.outline(served, place, reference["name"])
    if owner is None or owner["metadata"]["uid"] != reference["uid"]:
        return Fate.ABSENT
    return Fate.WAITING if waits(owner) else Fate.SOLID


def waits(obj: Object) -> bool:
    """The object is being deleted, and goes once its dependents that block it have gone."""
    metadata = obj["metadata"]
    return "deletionTimestamp" in metadata and FOREGROUND in (metadata.get("finalizers") or ())


def blocks(found: Iterable[Object], uid: str = "") -> bool:
    """One of these references keeps its owner from going; with `uid`, one to that owner."""
    return any(one.get("blockOwnerDeletion") and (not uid or one["uid"] == uid) for one in found)


def is_ignored(where: Dependent) -> bool:
    return (where.group, where.plural) in IGNORED
