"""What keeps an object from being deleted: one answer that names finalizers, dependents, contents and instances.

`GET <cluster>/explain/deletion/<the object's own path>` is authorized as a GET of the object. No document advertises
the path, so a client that walks discovery sees what kube-apiserver would show it. Nothing is decided here: what the
garbage collector and the other controllers wait for is read from the same places, as it is at this moment.

Rules of this file
- Of other objects only what the caller may read is told; of kinds that they may not read, that there could be more.
- All is bounded: how many dependents are looked at, how many objects described, and how deep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from clusterling.machinery.errors import not_found
from clusterling.machinery.meta import Object
from clusterling.packs.core.namespaces import FINALIZER as NAMESPACE_FINALIZER
from clusterling.registry.crd import CLEANUP_FINALIZER
from clusterling.registry.deleting import FOREGROUND, ORPHAN
from clusterling.registry.options import ListOptions
from clusterling.registry.ownership import UNDECIDED, blocks, fate, references
from clusterling.registry.resource import Served
from clusterling.services.request import Request, Response
from clusterling.services.requestinfo import parse
from clusterling.tenancy.cluster import FINALIZER as CLUSTER_FINALIZER

if TYPE_CHECKING:
    from clusterling.services.app import App

API_VERSION: Final = "explain.clusterling.io/v1alpha1"
KIND: Final = "DeletionExplanation"

DEPTH_MAX: Final = 8
DESCRIBED_MAX: Final = 100  # Objects named in one answer.
EXAMPLES_MAX: Final = 5  # Of one kind in a namespace, of one definition, of one owner.
SCANNED_MAX: Final = 2_000  # Dependents of one owner that are looked at.
LISTED_MAX: Final = 200  # Objects of one kind whose finalizers are counted.
DECODED_AT_ONCE: Final = 50
FINALIZERS_TOLD_MAX: Final = 5  # In the summary.

# What takes these away, and what for.
_OURS: Final = {
    ORPHAN: "the garbage collector takes the object out of its dependents' owner references first",
    CLUSTER_FINALIZER: "the controller of logical clusters removes the cluster's data first",
}
# Below these there is something else that may be kept.
_DEEP: Final = frozenset({FOREGROUND, CLEANUP_FINALIZER})


async def respond(app: App, request: Request, served: Served) -> Response:
    """The explanation for the object that the path names. Raises ApiError 404 where there is none."""
    info, cluster = request.info, request.cluster
    assert cluster is not None, "authorization refuses clusters that are not there"
    namespace = info.namespace if served.resource.namespaced else ""
    obj = await cluster.objects.read(served, namespace, info.name)
    if obj is None:
        raise not_found(served.plural, served.group, info.name)
    teller = _Teller(app, request)
    blockers = await teller.blockers(served, obj, 0)
    metadata = obj["metadata"]
    deleting = "deletionTimestamp" in metadata
    document: Object = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "object": _named(obj),
        "deleting": deleting,
        "summary": _summary(obj, blockers, teller),
        "blockedBy": blockers,
        "truncated": teller.truncated,
    }
    if deleting:
        document["deletionTimestamp"] = metadata["deletionTimestamp"]
    if teller.withheld:
        document["withheld"] = sorted(teller.withheld)
    if teller.controllers:
        document["controllers"] = teller.controllers
    return Response(200, orjson.dumps(document))


@dataclass(slots=True)
class _Teller:
    """One explanation while it is made: what may be told, what has been, and what is left untold."""

    app: App
    request: Request
    told: set[str] = field(default_factory=set)
    withheld: set[str] = field(default_factory=set)
    truncated: bool = False
    controllers: str = field(init=False)

    def __post_init__(self) -> None:
        self.controllers = self.app.controllers()

    # ------------------------------------------------------------------ one object

    async def blockers(self, served: Served, obj: Object, depth: int) -> list[Object]:
        """What keeps it, in the order of its finalizers; before them the time that it was given."""
        metadata = obj["metadata"]
        deleting = "deletionTimestamp" in metadata
        self.told.add(metadata["uid"])
        found = list(_grace(obj))
        if served.plural == "namespaces" and not served.group:
            for finalizer in obj.get("spec", {}).get("finalizers") or ():
                if finalizer != NAMESPACE_FINALIZER:
                    found.append(_finalizer(obj, finalizer, "spec"))
                elif deleting:
                    found.append(await self._content(metadata["name"], depth))
        for finalizer in metadata.get("finalizers") or ():
            if finalizer not in _OURS and finalizer not in _DEEP:
                found.append(_finalizer(obj, finalizer, "metadata"))
            elif not deleting:
                continue  # It says how a deletion shall go, and is taken away in its course.
            elif finalizer == FOREGROUND:
                found.append(await self._dependents(obj, depth))
            elif finalizer == CLEANUP_FINALIZER:
                found.append(await self._instances(obj, depth))
            else:
                found.append({"reason": "Controller", "finalizer": finalizer, "message": _OURS[finalizer]})
        return found

    async def _described(self, served: Served, obj: Object, depth: int) -> Object:
        """Another object, with what keeps it in turn."""
        shown = _named(obj)
        if "deletionTimestamp" in obj["metadata"]:
            shown["deletionTimestamp"] = obj["metadata"]["deletionTimestamp"]
        if obj["metadata"]["uid"] in self.told:
            return shown
        if depth >= DEPTH_MAX:
            self.truncated = True
            return shown
        found = await self.blockers(served, obj, depth)
        if "deletionTimestamp" not in obj["metadata"]:
            found += await self._undecided(obj)
        return {**shown, "blockedBy": found} if found else shown

    async def _undecided(self, obj: Object) -> list[Object]:
        """The owners for which the garbage collector leaves the object alone: it cannot know what became of them."""
        assert self.request.cluster is not None, "there is one"
        namespace = obj["metadata"].get("namespace", "")
        found = []
        for one in references(obj):
            became = await fate(self.request.cluster, one, namespace)
            if became in UNDECIDED:
                owner = f"{one['kind']} {one['name']} of {one['apiVersion']}"
                found.append({"reason": "Undecided", "message": f"its owner {owner} is {became.value}"})
        return found

    # ------------------------------------------------------------------ what belongs to it

    async def _dependents(self, owner: Object, depth: int) -> Object:
        """The dependents that block it, some of them described: those first that are kept by something themselves."""
        count = 0
        kept: list[tuple[Served, Object]] = []
        others: list[tuple[Served, Object]] = []
        async for served, one in self._blocking(owner):
            count += 1
            into = kept if one["metadata"].get("finalizers") else others
            if len(into) < EXAMPLES_MAX:
                into.append((served, one))
        found = await self._examples((kept + others)[:EXAMPLES_MAX], depth)
        message = f"waits for {_some(count, 'dependent')} with blockOwnerDeletion"
        if not count:
            message = (
                "no dependent that you may read blocks it"
                if self.withheld
                else "no dependent blocks it any more: the garbage collector lets it go"
            )
        return {
            "reason": "Dependents",
            "finalizer": FOREGROUND,
            "message": message,
            "count": count,
            "examples": found,
        }

    async def _blocking(self, owner: Object) -> AsyncIterator[tuple[Served, Object]]:
        cluster = self.request.cluster
        assert cluster is not None, "there is one"
        uid, after, scanned = owner["metadata"]["uid"], "", 0
        while True:
            page, after = await cluster.objects.some_dependents(uid, after, DECODED_AT_ONCE)
            await asyncio.sleep(0)
            for where in page:
                resource = cluster.catalog.resource(where.group, where.plural)
                if resource is None:
                    continue
                served = Served(resource, resource.version(resource.storage_version))
                one = await cluster.objects.read(served, where.namespace, where.name)
                if one is None or not blocks(references(one), uid):
                    continue
                if await self._may("get", served, where.namespace, where.name):
                    yield served, one
            scanned += len(page)
            if not after:
                return
            if scanned >= SCANNED_MAX:
                self.truncated = True
                return

    async def _content(self, namespace: str, depth: int) -> Object:
        """What is left in a namespace, kind by kind."""
        cluster = self.request.cluster
        assert cluster is not None, "there is one"
        kinds: list[Object] = []
        for served in cluster.catalog.storage:
            if served.resource.namespaced and "delete" in served.resource.verbs:
                left = await self._left(served, namespace, depth)
                if left is not None:
                    kinds.append(left)
            await asyncio.sleep(0)
        count = sum(one["count"] for one in kinds)
        names = ", ".join(f"{one['count']} {one['resource']}" for one in kinds)
        nothing = "nothing that you may read is left in it" if self.withheld else "nothing is left in it"
        message = f"waits for what is in it: {names}" if count else nothing
        if any((one["resource"], one["group"]) == ("pods", "") for one in kinds):
            message += "; the rest is deleted when the last pod has gone"
        return {
            "reason": "Content",
            "finalizer": NAMESPACE_FINALIZER,
            "message": message,
            "count": count,
            "kinds": kinds,
        }

    async def _instances(self, definition: Object, depth: int) -> Object:
        """What is left of the objects of a definition."""
        cluster, spec = self.request.cluster, definition.get("spec", {})
        assert cluster is not None, "there is one"
        resource = cluster.catalog.resource(spec.get("group", ""), spec.get("names", {}).get("plural", ""))
        left = None
        if resource is not None and not resource.builtin:
            served = Served(resource, resource.version(resource.storage_version))
            left = await self._left(served, "", depth)
        count = left["count"] if left else 0
        message = f"waits for {_some(count, 'object')} of its kind" if count else "no object of it is left"
        return {
            "reason": "Instances",
            "finalizer": CLEANUP_FINALIZER,
            "message": message,
            "count": count,
            "kinds": [left] if left else [],
        }

    async def _left(self, served: Served, namespace: str, depth: int) -> Object | None:
        """How many there are of a kind in a namespace, or anywhere, what their finalizers are, and some of them."""
        cluster = self.request.cluster
        assert cluster is not None, "there is one"
        if cluster.objects.has_none(served, namespace):
            return None
        if not await self._may("list", served, namespace, ""):
            return None
        listing = await cluster.objects.list(served, namespace, ListOptions(limit=LISTED_MAX))
        objects: list[Object] = []
        finalizers: dict[str, int] = {}
        for at, value in enumerate(listing.values):
            if at % DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
            obj = orjson.loads(value)
            objects.append(obj)
            for finalizer in obj["metadata"].get("finalizers") or ():
                finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
        if not objects:
            return None
        if listing.continue_token:
            self.truncated = True
        objects.sort(key=lambda obj: not obj["metadata"].get("finalizers"))
        return {
            "group": served.group,
            "resource": served.plural,
            "count": len(objects) + (listing.remaining or 0),
            "finalizers": finalizers,
            "examples": await self._examples([(served, obj) for obj in objects[:EXAMPLES_MAX]], depth),
        }

    async def _examples(self, some: Sequence[tuple[Served, Object]], depth: int) -> list[Object]:
        found = []
        for served, obj in some:
            if len(self.told) >= DESCRIBED_MAX:
                self.truncated = True
                break
            found.append(await self._described(served, obj, depth + 1))
        return found

    # ------------------------------------------------------------------ what may be told

    async def _may(self, verb: str, served: Served, namespace: str, name: str) -> bool:
        """Whether who asks may read that, as a request of their own would be judged."""
        prefix = f"/apis/{served.group}" if served.group else "/api"
        place = f"namespaces/{namespace}/" if namespace else ""
        path = f"{prefix}/{served.version.name}/{place}{served.plural}"
        info = parse("GET", f"{path}/{name}" if name else path, "", prefixed=False)
        assert info.verb == verb, "a path with a name is a get, one without a list"
        allowed = (await self.app.authorizer.authorize(self.request.user, self.request.cluster, info)).allowed
        if not allowed:
            self.withheld.add(f"{served.plural}.{served.group}" if served.group else served.plural)
        return allowed


# ---------------------------------------------------------------------- how it is said


def _named(obj: Object) -> Object:
    metadata = obj["metadata"]
    named = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "namespace": metadata.get("namespace")}
    return {key: value for key, value in named.items() if value} | {
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _grace(obj: Object) -> Iterable[Object]:
    """The time that an object was given to end; whoever runs it ends it before."""
    metadata = obj["metadata"]
    if not metadata.get("deletionGracePeriodSeconds"):
        return
    node = obj.get("spec", {}).get("nodeName")
    who = f"the kubelet of node {node}" if node else "whoever runs it"
    yield {
        "reason": "GracePeriod",
        "until": metadata["deletionTimestamp"],
        "message": f"has time until {metadata['deletionTimestamp']}; {who} deletes it for good",
    }


def _finalizer(obj: Object, finalizer: str, where: str) -> Object:
    """A finalizer that a client put there: whoever did takes it away, when its work is done."""
    found: Object = {"reason": "Finalizer", "finalizer": finalizer}
    if where != "metadata":
        found["field"] = f"{where}.finalizers"
    owners = list(_owners(obj, finalizer, where))
    if owners:
        found["putBy"] = owners
    who = ", ".join(f"{one['manager']} (wrote last at {one['time']})" for one in owners)
    found["message"] = f"waits for finalizer {finalizer}" + (f", put there by {who}" if who else "")
    return found


def _owners(obj: Object, finalizer: str, where: str) -> Iterable[Object]:
    """The field managers that own it. The time is that of their last write, not before which they put it there."""
    step = "v:" + orjson.dumps(finalizer).decode()
    for entry in obj["metadata"].get("managedFields") or ():
        fields: Any = entry.get("fieldsV1") or {}
        for name in (f"f:{where}", "f:finalizers"):
            fields = fields.get(name) or {}
        if step in fields:
            told = {key: entry.get(key, "") for key in ("manager", "operation", "time", "subresource")}
            yield {key: value for key, value in told.items() if value}


def _below(blockers: Iterable[Object]) -> Iterator[str]:
    """The finalizers of clients that hold what the object waits for."""
    for one in blockers:
        for kind in one.get("kinds") or ():
            yield from (finalizer for finalizer in kind["finalizers"] if finalizer not in _DEEP)
        for group in (one, *(one.get("kinds") or ())):
            for example in group.get("examples") or ():
                for held in example.get("blockedBy") or ():
                    if held["reason"] == "Finalizer":
                        yield held["finalizer"]
                yield from _below(example.get("blockedBy") or ())


def _summary(obj: Object, blockers: Sequence[Object], teller: _Teller) -> str:
    who = f"{obj['kind']} {obj['metadata']['name']}"
    reasons = "; ".join(str(one["message"]) for one in blockers)
    if "deletionTimestamp" not in obj["metadata"]:
        return f"{who} is not being deleted" + (f"; a deletion {reasons}" if reasons else "")
    since = obj["metadata"]["deletionTimestamp"]
    told = f"{who} is being deleted since {since}: {reasons or 'nothing that is known here keeps it'}"
    below = sorted(set(_below(blockers)))
    if below:
        told += f"; below that, {'finalizer' if len(below) == 1 else 'finalizers'} {', '.join(below[:FINALIZERS_TOLD_MAX])}"
    return f"{told}; {teller.controllers}" if teller.controllers else told
