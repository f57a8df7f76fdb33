"""apiextensions.k8s.io/v1: CustomResourceDefinition, the kind that makes kinds.

A CRD is served when its POST returns: names are accepted and the kind established in the write itself, where
upstream leaves both to controllers (`pkg/controller/{status,establish}`), whose rules, reasons and texts these are.
For that the write claims the names of its group: it rewrites the group's names fence at the revision it was read
at, so of two writers who read the same names one must look again (decision 4).

    ~fence/crd-schema/-/<crd>      rewritten whenever what the CRD serves changes; its revision is the schema's
    ~fence/crd-names/-/<group>     rewritten whenever names of the group are claimed or released

When names are released, the CRDs that waited for them get them in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import msgspec
import orjson
from typing_extensions import override

from clusterling.machinery.codec import encode_stored, same_json
from clusterling.machinery.errors import FieldError, go_quote
from clusterling.machinery.meta import Object, meta, name_of, rfc3339
from clusterling.machinery.schema import Schema, compile_schema
from clusterling.machinery.table import CREATED_DESCRIPTION, NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.registry import managing
from clusterling.registry.crd import (
    CLEANUP_FINALIZER,
    GROUP,
    PLURAL,
    condition,
    crd_warnings,
    decoded,
    default_crd,
    is_true,
    schema_fence,
    storage_version,
    validate_crd,
    validate_crd_status,
)
from clusterling.registry.options import ListOptions, WriteOptions
from clusterling.registry.pack import Pack
from clusterling.registry.resource import Resource, Served
from clusterling.registry.strategy import NO_COMPANIONS, SERVER, Companions, Context, Strategy
from clusterling.storage.store import Op

_DEFINITIONS: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_NAME_FIELDS: Final = ("plural", "singular", "shortNames", "kind", "listKind", "categories")
# The conditions that this server decides. Upstream: naming, establishing and finalizing controllers.
_DECIDED: Final = ("NamesAccepted", "Established", "Terminating")
# The parts of a spec that decide how a kind is served and stored; its names are decided in the status.
_SERVING_FIELDS: Final = ("group", "scope", "versions", "conversion", "preserveUnknownFields")
# Who decides them.
_CONTROLLER: Final = WriteOptions(field_manager="kube-apiserver")


def names_fence(group: str) -> str:
    """The key that changes whenever names of an API group are claimed or released."""
    return f"~fence/crd-names/-/{group or 'core'}"


# ---------------------------------------------------------------------- names


class _Names(msgspec.Struct, gc=False):
    plural: str = ""
    singular: str = ""
    kind: str = ""
    listKind: str = ""  # noqa: N815 (the API's word)
    shortNames: list[str] = msgspec.field(default_factory=list)  # noqa: N815


class _Status(msgspec.Struct, gc=False):
    acceptedNames: _Names = msgspec.field(default_factory=_Names)  # noqa: N815


class _Spec(msgspec.Struct, gc=False):
    group: str = ""
    names: _Names = msgspec.field(default_factory=_Names)


class _Metadata(msgspec.Struct, gc=False):
    name: str = ""


class _Summary(msgspec.Struct, gc=False):
    """What is read of other CRDs: their schemas, nearly all of their bytes, are skipped over."""

    metadata: _Metadata
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)

    @property
    def waits(self) -> bool:
        """It asks for names it has not got."""
        return self.spec.names != self.status.acceptedNames


_summaries = msgspec.json.Decoder(_Summary)


class Claims:
    """Which names of one API group are taken, and by whom."""

    def __init__(self) -> None:
        # Name → owners, so that a tenant's thousandth name costs what its first did.
        self._resources: dict[str, set[str]] = {}
        self._kinds: dict[str, set[str]] = {}
        self._owned: dict[str, tuple[set[str], set[str]]] = {}

    def take(self, owner: str, names: Mapping[str, object]) -> None:
        """What `owner` has from now on; what it had before is free."""
        shorts = names.get("shortNames") or []
        assert isinstance(shorts, list), "shortNames is a list"
        self.release(owner)
        resources = {str(names.get("plural")), str(names.get("singular")), *shorts}
        kinds = {str(names.get("kind")), str(names.get("listKind"))}
        self._owned[owner] = (resources, kinds)
        for table, taken in ((self._resources, resources), (self._kinds, kinds)):
            for name in taken:
                table.setdefault(name, set()).add(owner)

    def release(self, owner: str) -> None:
        resources, kinds = self._owned.pop(owner, (set(), set()))
        for table, taken in ((self._resources, resources), (self._kinds, kinds)):
            for name in taken:
                table[name].discard(owner)

    def resource_is_taken(self, name: str, by_others_than: str) -> bool:
        return bool(self._resources.get(name, set()) - {by_others_than})

    def kind_is_taken(self, name: str, by_others_than: str) -> bool:
        return bool(self._kinds.get(name, set()) - {by_others_than})


def accept_names(crd: Object, claims: Claims, now: datetime) -> None:
    """Gives the CRD the names that are free, and establishes it if it has got all. Changes its status, in place.

    Upstream: naming_controller.go, calculateNamesAndConditions; establishing_controller.go, sync.
    """
    status = crd["status"]
    wanted, had = crd["spec"]["names"], status.get("acceptedNames") or {}
    if {key: wanted.get(key) or None for key in _NAME_FIELDS} == {
        key: had.get(key) or None for key in _NAME_FIELDS
    } and is_true(crd, "Established"):
        return
    names, reason, message = _granted(name_of(crd), wanted, had, claims)
    # plural and kind are always shown, also while they are not granted.
    granted = {"plural": "", "kind": "", **names}
    status["acceptedNames"] = {
        key: granted[key] for key in _NAME_FIELDS if granted.get(key) or key in ("plural", "kind")
    }
    claims.take(name_of(crd), names)
    accepted = not reason
    set_condition(
        crd,
        "NamesAccepted",
        accepted,
        reason or "NoConflicts",
        message or "no conflicts found",
        now,
    )
    if accepted and not is_true(crd, "Established"):
        set_condition(
            crd, "Established", True, "InitialNamesAccepted", "the initial names have been accepted", now
        )
    elif condition(crd, "Established") is None:
        set_condition(crd, "Established", False, "NotAccepted", "not all names are accepted", now)


def _granted(owner: str, wanted: Object, had: Object, claims: Claims) -> tuple[Object, str, str]:
    """(names, reason of the last conflict or "", its message)."""
    names, reason, message = dict(had), "", ""
    for field, what, is_taken in (
        ("plural", "Plural", claims.resource_is_taken),
        ("singular", "Singular", claims.resource_is_taken),
        ("shortNames", "ShortNames", claims.resource_is_taken),
        ("kind", "Kind", claims.kind_is_taken),
        ("listKind", "ListKind", claims.kind_is_taken),
    ):
        asked = wanted.get(field) or ([] if field == "shortNames" else "")
        each = asked if isinstance(asked, list) else [asked]
        mine = had.get(field) or []
        kept = frozenset(mine if isinstance(mine, list) else [mine])
        conflicts = [one for one in each if one not in kept and is_taken(one, owner)]
        if conflicts:
            texts = list(dict.fromkeys(f"{go_quote(one)} is already in use" for one in conflicts))
            reason = f"{what}Conflict"
            message = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        else:
            names[field] = asked
    names["categories"] = wanted.get("categories") or []
    return names, reason, message


def set_condition(crd: Object, name: str, holds: bool, reason: str, message: str, now: datetime) -> None:
    """Upstream: apihelpers, SetCRDCondition; the time moves only with the status."""
    value = "True" if holds else "False"
    found = condition(crd, name)
    if found is None:
        found = {"type": name, "status": "", "lastTransitionTime": "", "reason": "", "message": ""}
        crd["status"].setdefault("conditions", []).append(found)
    if found["status"] != value:
        found["lastTransitionTime"] = rfc3339(now)
    found.update(status=value, reason=reason, message=message)


def _keep_decisions(new: Object, old: Object) -> None:
    """What this server decides of a CRD stays as it was, whatever a client writes into the status; the rest is the client's.

    Upstream takes the write, and its controllers put these back a moment later.
    """
    status, before = new["status"], old.get("status") or {}
    if "acceptedNames" in before:
        status["acceptedNames"] = before["acceptedNames"]
    # As Go writes a condition, also one of which the client gave nothing.
    blank = {"lastTransitionTime": None, "status": "", "type": ""}
    status["conditions"] = [{**blank, **(one or {})} for one in status.get("conditions") or ()]
    for name in _DECIDED:
        mine, theirs = condition(old, name), condition(new, name)
        if mine is None or (theirs is not None and theirs["status"] == mine["status"]):
            continue
        others = [one for one in status["conditions"] if one["type"] != name]
        status["conditions"] = [*others, mine]


# ---------------------------------------------------------------------- the kind


class CustomResourceDefinitionStrategy(Strategy):
    allow_unconditional_update = False
    outlines_columns = True

    @override
    def outline(self, value: bytes) -> Object:
        return decoded(value)

    @override
    def read(self, ctx: Context, new: Object) -> None:
        if ctx.subresource != "status":
            default_crd(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        """Upstream: registry/customresourcedefinition/strategy.go."""
        stored = storage_version(new)
        new["status"] = {
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": [stored] if stored else [],
        }

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]
            status = new["status"] = new.get("status") or {}
            if ctx.user != SERVER:
                _keep_decisions(new, old)
            stored = storage_version(new)
            if stored and not status.get("storedVersions"):
                # Upstream: apiextensions/v1/defaults.go.
                status["storedVersions"] = [stored]
            return
        new["status"] = msgspec.json.decode(msgspec.json.encode(old.get("status") or {}))
        stored = storage_version(new)
        versions = new["status"].setdefault("storedVersions", [])
        if stored and stored not in versions:
            versions.append(stored)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return self._judge(ctx, new, None)

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            return validate_crd_status(new)
        return self._judge(ctx, new, old)

    @staticmethod
    def _judge(ctx: Context, new: Object, old: Object | None) -> Sequence[FieldError]:
        errors = validate_crd(new, old)
        if not errors:
            for text in crd_warnings(new, old):
                ctx.warn(text)
        return errors

    @override
    def begin_delete(self, ctx: Context, obj: Object) -> bool:
        """The kind stays until its objects are gone. Upstream: registry/customresourcedefinition/etcd.go, Delete."""
        finalizers = meta(obj).get("finalizers") or []
        if "deletionTimestamp" not in meta(obj):
            if CLEANUP_FINALIZER not in finalizers:
                meta(obj)["finalizers"] = [*finalizers, CLEANUP_FINALIZER]
            obj.setdefault("status", {})
            set_condition(
                obj,
                "Terminating",
                True,
                "InstanceDeletionPending",
                "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
                ctx.ports.clock.now(),
            )
            return True
        return bool(finalizers)

    @override
    async def companions(self, ctx: Context, new: Object | None, old: Object | None) -> Companions:
        """Claims and releases names, and moves the fences.

        The outcome of a claim is part of the object and of the fence, so both come from one reading, here.
        """
        if new is None:
            assert old is not None, "something is being removed"
            return Companions((*await _released(ctx, old, None), *await _fence_removal(ctx, old)))
        if ctx.subresource == "status":
            return NO_COMPANIONS
        if old is not None and _names_of(new) == _names_of(old):
            served_alike = all(
                same_json(new["spec"].get(field), old["spec"].get(field)) for field in _SERVING_FIELDS
            )
            return NO_COMPANIONS if served_alike else Companions((Op(schema_fence(name_of(new)), b"{}"),))
        ops = await _released(ctx, old or new, new)
        return Companions((*ops, Op(schema_fence(name_of(new)), b"{}")))


def _names_of(crd: Object) -> Object:
    found: Object = crd["spec"].get("names") or {}
    return found


async def _fence_removal(ctx: Context, crd: Object) -> Sequence[Op]:
    fence = schema_fence(name_of(crd))
    standing = await ctx.objects.fence(fence)
    return (Op(fence, None, expected=standing),) if standing else ()


async def _released(ctx: Context, crd: Object, new: Object | None) -> Sequence[Op]:
    """Settles the names of the CRD's group: `new` (None: it goes) first, then those who waited."""
    group = crd["spec"].get("group") or ""
    fence = names_fence(group)
    # Read before the names: whoever changes them afterwards moves the fence, and this write fails.
    standing = await ctx.objects.fence(fence)
    claims, waiting = await _group(ctx, group, name_of(crd))
    now = ctx.ports.clock.now()
    if new is not None:
        had = (new["status"].get("acceptedNames") or {}) if new is not crd else {}
        if had.get("plural"):
            claims.take(name_of(new), had)
        _accept(ctx, new, claims, now)
    ops = [Op(fence, b"{}", expected=standing)]
    for other in waiting:
        before = orjson.dumps(other["status"])
        _accept(ctx, other, claims, now)
        if orjson.dumps(other["status"]) != before:
            revision = int(other["metadata"].pop("resourceVersion"))
            key = f"{GROUP}/{PLURAL}/-/{name_of(other)}"
            ops.append(Op(key, encode_stored(other), expected=revision))
            ops.append(Op(schema_fence(name_of(other)), b"{}"))
    return ops


def _accept(ctx: Context, crd: Object, claims: Claims, now: datetime) -> None:
    """Accepts names, in place, and tells who did: upstream a controller within kube-apiserver, in a write of its own."""
    before = {**crd, "metadata": dict(meta(crd)), "status": orjson.loads(orjson.dumps(crd["status"]))}
    accept_names(crd, claims, now)
    managing.track_update(_served(ctx), "status", crd, before, _CONTROLLER, rfc3339(now))


def _served(ctx: Context) -> Served:
    served = ctx.catalog.find(GROUP, "v1", PLURAL)
    assert served is not None, "a CRD is being written"
    return served


async def _group(ctx: Context, group: str, but: str) -> tuple[Claims, list[Object]]:
    """The names taken in a group by built-in kinds and by other CRDs than `but`; the CRDs that wait for some."""
    claims = Claims()
    for resource in ctx.catalog.resources:
        if resource.builtin and resource.group == group:
            claims.take(f"{resource.names.plural} (built in)", _as_mapping(resource))
    waiting: list[Object] = []
    for value in (await ctx.objects.list(_served(ctx), "", ListOptions())).values:
        summary = _summaries.decode(value)
        if summary.spec.group != group or summary.metadata.name == but:
            continue
        claims.take(summary.metadata.name, msgspec.to_builtins(summary.status.acceptedNames))
        if summary.waits:
            waiting.append(orjson.loads(value))
    return claims, waiting


def _as_mapping(resource: Resource) -> Mapping[str, object]:
    names = resource.names
    return {
        "plural": names.plural,
        "singular": names.singular,
        "shortNames": list(names.short_names),
        "kind": names.kind,
        "listKind": names.list_kind,
    }


# ---------------------------------------------------------------------- the Resource


class _SchemaOfSchemas(Schema):
    """The kind's published schema for what is unknown, and a closed one for all else.

    OpenAPI cannot express the three unions in a CRD (`items` is a schema or a list of them, …), so what is
    published leaves them open. Upstream decodes below them without reporting unknown fields, but drops these,
    and refuses wrong types.
    """

    def __init__(self, published: Schema, closed: Schema) -> None:
        super().__init__(published.source, closed.node)
        self._published = published

    @override
    def prune(self, obj: Object) -> list[str]:
        unknown = self._published.prune(obj)
        super().prune(obj)
        return unknown


def _schema() -> Schema:
    props = builtin.definitions[f"{_DEFINITIONS}JSONSchemaProps"]
    either = {key: value for key, value in props.items() if key != "type"}
    array = {**either, "items": {"$ref": f"#/components/schemas/{_DEFINITIONS}JSONSchemaProps"}}
    closed = _Overlaid(
        {
            f"{_DEFINITIONS}JSONSchemaPropsOrArray": array,
            f"{_DEFINITIONS}JSONSchemaPropsOrBool": either,
            f"{_DEFINITIONS}JSONSchemaPropsOrStringArray": either,
        }
    )
    source = closed[f"{_DEFINITIONS}CustomResourceDefinition"]
    return _SchemaOfSchemas(_published.versions[0].schema, compile_schema(source, definitions=closed))


class _Overlaid(dict[str, Object]):
    """Some definitions of our own over the published ones, which are read when asked for."""

    def __missing__(self, name: str) -> Object:
        return builtin.definitions[name]

    @override
    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in builtin.definitions


def _spec(obj: Object) -> Object:
    """The spec; a bookmark in a watch of Tables has none."""
    found: Object = obj.get("spec") or {}
    return found


def _served_versions(obj: Object, _now: datetime) -> object:
    labels = [
        f"{version['name']}(storage)" if version.get("storage") else version["name"]
        for version in _spec(obj).get("versions") or ()
        if version.get("served")
    ]
    return ",".join(sorted(labels))


def _created_at(obj: Object, _now: datetime) -> object:
    return meta(obj).get("creationTimestamp", "")


def _kind_named(obj: Object, _now: datetime) -> object:
    return (_spec(obj).get("names") or {}).get("kind", "")


def _short_names(obj: Object, _now: datetime) -> object:
    return ",".join((_spec(obj).get("names") or {}).get("shortNames") or ())


# Upstream: pkg/registry/customresourcedefinition/tableconvertor.
_COLUMNS: Final = (
    NAME_COLUMN,
    Column("Scope", "string", lambda obj, _: _spec(obj).get("scope", ""), "", "Cluster/Namespaced"),
    Column("Versions", "string", _served_versions, "", "Served versions"),
    Column("Created At", "date", _created_at, "", CREATED_DESCRIPTION),
    Column("Group", "string", lambda obj, _: _spec(obj).get("group", ""), "", "API group", 1),
    Column("Kind", "string", _kind_named, "", "CustomResource kind", 1),
    Column("ShortNames", "string", _short_names, "", "Short names", 1),
    Column("Established", "boolean", lambda obj, _: is_true(obj, "Established"), "", "Established status", 1),
)

_published: Final = builtin.resource(
    GROUP,
    "v1",
    PLURAL,
    strategy=CustomResourceDefinitionStrategy(),
    columns=_COLUMNS,
)
CUSTOM_RESOURCE_DEFINITIONS: Final = replace(
    _published, versions=(replace(_published.versions[0], schema=_schema()),)
)

PACK: Final = Pack("apiextensions", (CUSTOM_RESOURCE_DEFINITIONS,))
