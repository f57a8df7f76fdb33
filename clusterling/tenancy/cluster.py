"""LogicalCluster: a kind like any other, served in the logical cluster `root`; and the pack that `root` serves.

The object in `root` is the record of truth. What requests need of it comes through `directory.py`; removing a
deleted cluster's data is a controller's work, which this file's finalizer waits for.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import orjson
from typing_extensions import override

from clusterling.machinery.codec import encode_stored
from clusterling.machinery.errors import (
    FieldError,
    bad_request,
    conflict,
    forbidden,
    forbidden_field,
    invalid_value,
    not_found,
)
from clusterling.machinery.meta import Object, meta, name_of, rfc3339
from clusterling.machinery.schema import compile_schema
from clusterling.machinery.table import AGE_COLUMN, NAME_COLUMN, column_from_jsonpath
from clusterling.registry.choice import Offer
from clusterling.registry.cluster import READ_ONLY, SUSPENDED
from clusterling.registry.pack import Pack
from clusterling.registry.ports import Clock
from clusterling.registry.resource import Names, Resource, Subresource, SubresourceCall, Version
from clusterling.registry.strategy import NO_COMPANIONS, Companions, Context, Strategy, User
from clusterling.storage.guarded import CLOSED
from clusterling.storage.store import ABSENT, Entry, KeyExists, Op, RevisionConflict, Store
from clusterling.tenancy import reports
from clusterling.tenancy.authorization import MASTERS
from clusterling.tenancy.directory import COLLECTION, access_of, key_of
from clusterling.tenancy.lifetimes import RENEWED, ttl_s
from clusterling.tenancy.names import ROOT, ROOT_ID, cluster_id, fence_key, name_problems
from clusterling.tenancy.quota import SCHEMA as QUOTA_SCHEMA
from clusterling.tenancy.quota import quota_problems

GROUP: Final = "tenancy.clusterling.io"
VERSION: Final = "v1alpha1"
KIND: Final = "LogicalCluster"
PLURAL: Final = "logicalclusters"

# Holds the object until the controller has removed the cluster's data. Only the controller takes it off.
FINALIZER: Final = "tenancy.clusterling.io/cluster"

# Whom the controller that removes data acts as.
CONTROLLER: Final = User("system:clusterling:clusters", (MASTERS, "system:authenticated"), realm=ROOT_ID)

_PAGE: Final = 500

READY: Final = "Ready"
TERMINATING: Final = "Terminating"
EXPIRING: Final = "Expiring"

_PACK: Final = "^-?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[a-z0-9]+)?$"

_LATER: Final = "not available in this version of Clusterling: leave it out"

# Fields whose shape is settled and whose promise is not kept yet. To accept them would be to lie.
_NOT_YET: Final = ("template", "controllers")


def _reserved(schema: Object, description: str) -> Object:
    return {**schema, "description": f"{description} Refused in this version."}


_SPEC: Final[Object] = {
    "type": "object",
    "description": "What the cluster should be.",
    "properties": {
        "displayName": {
            "type": "string",
            "maxLength": 256,
            "description": "What people call the cluster. Shown, never interpreted.",
        },
        "suspended": {
            "type": "boolean",
            "description": "Whether all requests to the cluster are refused with 503. Its data stay.",
        },
        "access": {
            "type": "string",
            "enum": ["ReadWrite", "ReadOnly"],
            "description": "ReadOnly: writes are refused, reads and watches go on. ReadWrite where it is left out.",
        },
        "deletionProtection": {
            "type": "boolean",
            "description": "Whether deleting the cluster is refused.",
        },
        "ttl": {
            "type": "string",
            "maxLength": 32,
            "description": "How long the cluster lives, as in 2h or 1h30m, from its creation, or from when this or the "
            f"annotation {RENEWED} was last changed.",
        },
        "packs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 256,
            "items": {"type": "string", "maxLength": 512, "pattern": _PACK},
            "description": "The built-in kinds the cluster serves, where not those of the server: none, default, all, or packs "
            "and pack/resource, with - before what to leave out; read in this order. Kinds can be added later, "
            "not taken away.",
        },
        "template": _reserved(
            {"type": "string", "maxLength": 253}, "The LogicalClusterTemplate the cluster begins with."
        ),
        "quota": QUOTA_SCHEMA,
        "controllers": _reserved(
            {"type": "object", "maxProperties": 64, "additionalProperties": {"type": "boolean"}},
            "Controllers switched on or off for this cluster, by name.",
        ),
    },
}

_CONDITION: Final[Object] = {
    "type": "object",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": {"type": "string", "maxLength": 316},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
        "message": {"type": "string", "maxLength": 32768},
    },
}

_STATUS: Final[Object] = {
    "type": "object",
    "description": "What the cluster is.",
    "properties": {
        "id": {
            "type": "string",
            "description": "The cluster's identity in the store and in credentials. Never used again.",
        },
        "phase": {
            "type": "string",
            "description": "Ready, ReadOnly, Suspended, or Terminating while its data are removed.",
        },
        "url": {"type": "string", "description": "Where clients reach the cluster."},
        "expiresAt": {
            "type": "string",
            "format": "date-time",
            "description": "When the cluster is deleted, unless it is renewed.",
        },
        **reports.STATUS,
        "conditions": {
            "type": "array",
            "maxItems": 32,
            "items": _CONDITION,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    },
}

SCHEMA: Final[Object] = {
    "type": "object",
    "description": "LogicalCluster is a Kubernetes API of its own, isolated from all others on this server.",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": _SPEC,
        "status": _STATUS,
    },
}


# phase → status and message of the condition Ready, whose reason is the phase where the cluster is not served.
_PHASES: Final = {
    READY: ("True", "the cluster is served"),
    READ_ONLY: ("True", "the cluster is served, and refuses writes"),
    SUSPENDED: ("False", "the cluster is suspended: all requests are refused"),
    TERMINATING: ("False", "the cluster's data are being removed"),
}


def _condition(now: str, generation: int, phase: str) -> Object:
    status, message = _PHASES[phase]
    return {
        "type": READY,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": now,
        "reason": "Serving" if phase == READY else phase,
        "message": message,
    }


def _brought_up(obj: Object, status: Object, now: str) -> Object:
    """The status with the phase that the spec asks for, and its condition. One that is being deleted stays so."""
    phase = access_of(_spec(obj)) or READY
    if status.get("phase") in (phase, TERMINATING):
        return status
    given = status.get("conditions") or ()
    others = [one for one in given if one["type"] != READY]
    condition = _condition(now, meta(obj).get("generation", 1), phase)
    for one in given:
        if one["type"] == READY and one["status"] == condition["status"]:
            condition["lastTransitionTime"] = one["lastTransitionTime"]
    return {**status, "phase": phase, "conditions": [*others, condition]}


def initial_status(uid: str, *, url: str, now: str, generation: int = 1) -> Object:
    """The status a cluster is born with: Ready at once. `url` is left out where no socket serves it."""
    status: Object = {"id": cluster_id(uid), "phase": READY}
    if url:
        status["url"] = url
    status["conditions"] = [_condition(now, generation, READY)]
    return status


class LogicalClusterStrategy(Strategy):
    """Clusters are Ready when their POST returns; their id never changes; `root` stays."""

    name_problems = staticmethod(name_problems)

    def __init__(self, offer: Offer) -> None:
        """`offer`: what `spec.packs` may choose from."""
        self._offer = offer

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        metadata = meta(new)
        metadata["finalizers"] = _with_ours(metadata.get("finalizers"))
        new.setdefault("spec", {})
        new["status"] = initial_status(
            metadata["uid"],
            url=ctx.ports.kubeconfigs.url(name_of(new)),
            now=rfc3339(ctx.ports.clock.now()),
        )
        new["status"] = _brought_up(new, new["status"], rfc3339(ctx.ports.clock.now()))
        _limit_life(new, None, ctx.ports.clock.now())

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["metadata"], new["spec"] = dict(meta(old)), old.get("spec", {})
            new["status"] = _guarded_status(new.get("status") or {}, old["status"])
        else:
            new.setdefault("spec", {})
            new["status"] = _brought_up(new, old["status"], rfc3339(ctx.ports.clock.now()))
            _limit_life(new, old, ctx.ports.clock.now())
        if FINALIZER in (meta(old).get("finalizers") or ()) and ctx.user != CONTROLLER:
            meta(new)["finalizers"] = _with_ours(meta(new).get("finalizers"))

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [*self._reserved_problems(new), *_ttl_problems(new), *self._pack_problems(new)]

    @staticmethod
    def _reserved_problems(new: Object) -> Sequence[FieldError]:
        spec = _spec(new)
        wrong = [forbidden_field(f"spec.{field}", _LATER) for field in _NOT_YET if field in spec]
        if name_of(new) == ROOT:
            wrong += [
                forbidden_field(f"spec.{field}", "root stays as it is")
                for field in ("suspended", "access", "deletionProtection", "ttl", "quota")
                if field in spec
            ]
        return [*wrong, *quota_problems(spec)]

    def _pack_problems(self, new: Object) -> Sequence[FieldError]:
        packs = _packs(new)
        if packs is None:
            return ()
        if name_of(new) == ROOT:
            return [forbidden_field("spec.packs", "root serves what the server does")]
        try:
            self._offer.kinds(packs)
        except ValueError as error:
            return [invalid_value("spec.packs", ",".join(packs), str(error))]
        return ()

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        """A living cluster may be given more kinds. What it has stays: behind a kind taken away, its objects
        would be out of everybody's reach, finalizers, owners and namespaces' deletion included."""
        packs, before = _packs(new), _packs(old)
        if packs == before:
            # What was chosen from another replica's offer, perhaps, is not judged by this one's.
            return [*self._reserved_problems(new), *_ttl_problems(new)]
        wrong = list(self.validate(ctx, new))
        if not wrong:
            known = None if before is None else self._offer.known(before) or ["none"]
            lost = sorted(map(str, self._offer.kinds(known) - self._offer.kinds(packs)))
            if lost:
                why = f"kinds can be added to a living cluster, not taken away: {', '.join(lost)}"
                wrong.append(forbidden_field("spec.packs", why))
        return wrong

    @override
    async def companions(self, ctx: Context, new: Object | None, old: Object | None) -> Companions:
        """The cluster's fence stands from its creation to its deletion; every write in the cluster guards on it.

        It is closed while nobody may write there, which also ends the writes that are under way at that moment.
        """
        obj = new if new is not None else old
        assert obj is not None, "a write has an object before or after it"
        fence = fence_key(obj["status"]["id"])
        if old is None:
            return Companions((Op(fence, _fence_of(obj), expected=ABSENT),))
        if name_of(obj) == ROOT:
            return NO_COMPANIONS
        ends = new is None or bool(meta(new).get("deletionTimestamp"))
        if not ends and _fence_of(obj) == _fence_of(old):
            return NO_COMPANIONS
        standing = await ctx.objects.fence(fence, alone=True)
        value = None if ends else _fence_of(obj)
        return Companions((Op(fence, value, expected=standing),)) if standing else NO_COMPANIONS

    @override
    def may_delete(self, ctx: Context, old: Object) -> None:
        if name_of(old) == ROOT:
            raise forbidden(PLURAL, GROUP, ROOT, "this logical cluster may not be deleted")
        if _spec(old).get("deletionProtection"):
            why = "it is protected from deletion: set spec.deletionProtection to false first"
            raise forbidden(PLURAL, GROUP, name_of(old), why)

    @override
    def begin_delete(self, ctx: Context, obj: Object) -> bool:
        stays = FINALIZER in (meta(obj).get("finalizers") or ())
        status = obj["status"]
        if stays and status.get("phase") != TERMINATING:
            status["phase"] = TERMINATING
            others = [one for one in status.get("conditions") or () if one["type"] != READY]
            now = rfc3339(ctx.ports.clock.now())
            status["conditions"] = [*others, _condition(now, meta(obj).get("generation", 1), TERMINATING)]
        return stays


def _ttl_problems(obj: Object) -> Sequence[FieldError]:
    ttl = _spec(obj).get("ttl")
    try:
        if ttl is not None:
            ttl_s(ttl)
    except ValueError as error:
        return [invalid_value("spec.ttl", ttl, str(error))]
    return ()


def _limit_life(new: Object, old: Object | None, now: datetime) -> None:
    """Says in the status when the cluster ends: counted from now where it is new, or renewed."""
    ttl = _spec(new).get("ttl")
    if old is not None and (ttl, _renewed(new)) == (_spec(old).get("ttl"), _renewed(old)):
        return
    status = {field: value for field, value in new["status"].items() if field != "expiresAt"}
    status["conditions"] = [one for one in status.get("conditions") or () if one["type"] != EXPIRING]
    # What is no duration is refused when the whole is validated.
    with suppress(ValueError):
        if ttl is not None:
            status["expiresAt"] = rfc3339(now + timedelta(seconds=ttl_s(ttl)))
    new["status"] = status


def _renewed(obj: Object) -> object:
    return (meta(obj).get("annotations") or {}).get(RENEWED)


def set_condition(obj: Object, kind: str, reason: str, message: str, now: str) -> bool:
    """Has a condition be true of the object, for this reason. False: it said so already."""
    conditions = obj["status"].setdefault("conditions", [])
    for one in conditions:
        if one["type"] == kind and (one["status"], one["message"]) == ("True", message):
            return False
    new = {
        "type": kind,
        "status": "True",
        "observedGeneration": meta(obj).get("generation", 1),
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }
    obj["status"]["conditions"] = [*(one for one in conditions if one["type"] != kind), new]
    return True


def _spec(obj: Object) -> Object:
    """Its spec; an empty one where what was sent is none, which is told when the whole is validated."""
    spec = obj.get("spec")
    return spec if isinstance(spec, dict) else {}


def _fence_of(obj: Object) -> bytes:
    return CLOSED if access_of(_spec(obj)) else b"{}"


def _packs(obj: Object) -> list[str] | None:
    packs: list[str] | None = _spec(obj).get("packs")
    return packs


def _with_ours(finalizers: list[str] | None) -> list[str]:
    given = list(finalizers or ())
    return given if FINALIZER in given else [*given, FINALIZER]


def _guarded_status(new: Object, old: Object) -> Object:
    """A new status that keeps what only the server decides."""
    kept: Object = {field: old[field] for field in ("id", "phase", "expiresAt") if field in old}
    return {**{field: value for field, value in new.items() if field != "expiresAt"}, **kept}


async def _kubeconfig(ctx: Context, call: SubresourceCall) -> Object:
    """A kubeconfig with a token of its own, which no later call gives again (decision 31)."""
    if call.parent is None:
        raise not_found(PLURAL, GROUP, call.name)
    if meta(call.parent).get("deletionTimestamp"):
        raise conflict(PLURAL, GROUP, call.name, "the logical cluster is being deleted")
    if ctx.dry_run:
        raise bad_request("a kubeconfig cannot be had in a dry run: it carries a new credential")
    # Asked first, so that no token is made where there is no address to put beside it.
    ctx.ports.kubeconfigs.kubeconfig(call.name, "")
    token = await ctx.ports.tokens.issue(
        call.parent["status"]["id"], f"clusterling:admin:{call.name}", (MASTERS, "system:authenticated")
    )
    return ctx.ports.kubeconfigs.kubeconfig(call.name, token)


def root_pack(offer: Offer, parts: Sequence[Subresource] = ()) -> Pack:
    """What the logical cluster `root` serves besides the packs of every cluster; `offer` is what those choose from.

    `parts`: more subresources of a LogicalCluster.
    """
    kubeconfig = Subresource("kubeconfig", "", "v1", "Config", ("create",), _kubeconfig)
    resource = Resource(
        group=GROUP,
        names=Names(PLURAL, "logicalcluster", KIND, f"{KIND}List", ("lc",), ("clusterling",)),
        namespaced=False,
        versions=(
            Version(
                VERSION,
                compile_schema(SCHEMA),
                columns=(
                    NAME_COLUMN,
                    column_from_jsonpath(
                        "Phase",
                        "string",
                        ".status.phase",
                        description="Ready, ReadOnly, Suspended or Terminating.",
                    ),
                    reports.OBJECTS_COLUMN,
                    reports.STORAGE_COLUMN,
                    column_from_jsonpath(
                        "Expires", "string", ".status.expiresAt", description="When it is deleted."
                    ),
                    column_from_jsonpath(
                        "URL", "string", ".status.url", description="Where clients reach it."
                    ),
                    AGE_COLUMN,
                    reports.ACTIVITY_COLUMN,
                    reports.QUOTA_COLUMN,
                    column_from_jsonpath(
                        "ID", "string", ".status.id", description="The cluster's identity.", priority=1
                    ),
                ),
                status=True,
            ),
        ),
        storage_version=VERSION,
        strategy=LogicalClusterStrategy(offer),
        subresources=MappingProxyType({part.name: part for part in (kubeconfig, *parts)}),
        builtin=False,
    )
    return Pack("tenancy", (resource,))


def root_object(uid: str, now: str, url: str) -> Object:
    """`root` as one of its own objects."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": ROOT, "uid": uid, "generation": 1, "creationTimestamp": now},
        "spec": {"displayName": "The platform itself"},
        "status": {**initial_status(uid, url=url, now=now), "id": ROOT_ID},
    }


async def ensure_root(store: Store, clock: Clock, url: str) -> None:
    """Writes `root`'s own object where a new store has none. `store` is root's keyspace. Safe to repeat."""
    if await store.get(key_of(ROOT)) is not None:
        return
    obj = root_object(str(uuid.uuid4()), rfc3339(clock.now()), url)
    try:
        await store.write([Op(key_of(ROOT), encode_stored(obj), expected=ABSENT)])
    except KeyExists:
        return


async def refresh_urls(store: Store, url_of: Callable[[str], str]) -> None:
    """Corrects the addresses in statuses after the server's own has changed. `store` is root's keyspace.

    Writes only those whose address is another now, and `root`'s last: while that is right, so are all others, and
    a start costs one look. Safe to repeat.
    """
    root = await store.get(key_of(ROOT))
    if root is None or not _is_misplaced(orjson.loads(root.value), url_of):
        return
    after = ""
    while True:
        page = await store.list(f"{COLLECTION}-/", after=after, limit=_PAGE)
        # Together, so that they share commits.
        async with asyncio.TaskGroup() as group:
            for entry in page.entries:
                if entry.key != root.key:
                    group.create_task(_refresh_url(store, entry, url_of))
        if len(page.entries) < _PAGE:
            break
        after = page.entries[-1].key
    await _refresh_url(store, root, url_of)


def _is_misplaced(obj: Object, url_of: Callable[[str], str]) -> bool:
    url = url_of(name_of(obj))
    return bool(url) and obj["status"].get("url") != url


async def _refresh_url(store: Store, entry: Entry, url_of: Callable[[str], str]) -> None:
    obj: Object = orjson.loads(entry.value)
    if not _is_misplaced(obj, url_of):
        return
    # In the place it has when a cluster is made: before the conditions.
    status = {key: value for key, value in obj["status"].items() if key not in ("url", "conditions")}
    obj["status"] = {**status, "url": url_of(name_of(obj)), "conditions": obj["status"].get("conditions", [])}
    meta(obj).pop("resourceVersion", None)
    # Whoever wrote it meanwhile, or deleted it, knows better.
    with suppress(RevisionConflict):
        await store.write([Op(entry.key, encode_stored(obj), expected=entry.revision)])
