"""Who owns which fields, for one kind: what `machinery.apply` needs to know of it, taken from its Resource.

Upstream: apiserver pkg/endpoints/handlers (create.go, update.go, patch.go) and apiextensions-apiserver, which
give a FieldManager its types, its conversions and the fields that a write resets.
"""

from __future__ import annotations

from typing import Final

import orjson
from typing_extensions import override

from clusterling.machinery.apply import managed
from clusterling.machinery.apply.declared import object_type
from clusterling.machinery.apply.fieldset import FieldSet, field_step
from clusterling.machinery.apply.managed import Writer
from clusterling.machinery.apply.owners import Versions
from clusterling.machinery.apply.types import MapType
from clusterling.machinery.errors import ApiError, bad_request
from clusterling.machinery.meta import GroupVersion, Object, meta
from clusterling.registry import views
from clusterling.registry.options import WriteOptions
from clusterling.registry.resource import Served

_TYPE: Final = "apply/object"


class _Kind(Versions):
    """The versions of a served kind, as a write to `part` of it ("" the object itself) sees them."""

    __slots__ = ("_part", "_served")

    def __init__(self, served: Served, part: str) -> None:
        self._served = served
        self._part = part

    @property
    @override
    def settled(self) -> bool:
        return not self._served.resource.schema_revision

    @property
    @override
    def certain(self) -> bool:
        resource = self._served.resource
        return resource.builtin or (len(resource.versions) == 1 and not resource.schema_revision)

    @override
    def type(self, api_version: str) -> MapType | None:
        served = self._at(api_version)
        return None if served is None else _type_of(served)

    @override
    def convert(self, obj: Object, api_version: str) -> Object:
        given, wanted = self._at(obj["apiVersion"]), self._at(api_version)
        if obj["apiVersion"] == api_version or given is None or wanted is None:
            return obj
        if self._served.resource.converter is None:
            # Neither pruned nor defaulted on the way: a default would count as a field that somebody left there.
            return {**obj, "apiVersion": api_version}
        copy: Object = orjson.loads(orjson.dumps(obj))
        # On the way through Go's types what is empty is left out.
        copy["metadata"] = {name: value for name, value in (copy.get("metadata") or {}).items() if value}
        return views.from_storage(views.to_storage(copy, given), wanted)

    @override
    def kept(self, fields: FieldSet, api_version: str) -> FieldSet:
        served = self._at(api_version) or self._served
        if not (self._part or served.resource.builtin or api_version == self._served.api_version):
            # Upstream asks the strategy of a custom kind's one version, which knows of no other.
            return fields
        return served.resource.strategy.changeable(self._part, fields, has_status=served.version.status)

    def _at(self, api_version: str) -> Served | None:
        if api_version == self._served.api_version:
            return self._served
        resource, group_version = self._served.resource, GroupVersion.parse(api_version)
        if group_version.group != resource.group:
            return None
        known = (version for version in resource.versions if version.name == group_version.version)
        version = next(known, None)
        return None if version is None else Served(resource, version)


def _type_of(served: Served) -> MapType:
    compiled = served.version.schema.node.compiled
    found: MapType | None = compiled.get(_TYPE)
    if found is None:
        found = compiled[_TYPE] = object_type(served.version.schema.node)
    return found


def _writer(served: Served, part: str, options: WriteOptions) -> Writer:
    subresource = options.written_as or part
    if options.written_as != "scale":
        return Writer(options.field_manager, served.api_version, subresource)
    # A scale is an object of its own, in whose version its owners are told.
    scale = served.version.scale
    assert scale is not None, "what is written as a scale has one"
    replicas = tuple(map(field_step, scale.spec_replicas_path.removeprefix(".").split(".")))
    return Writer(options.field_manager, served.api_version, subresource, "autoscaling/v1", replicas)


def track_create(served: Served, obj: Object, options: WriteOptions, now: str) -> None:
    """Writes into a new object who owns its fields. A write without a field manager is the server's own, and not told of."""
    if options.field_manager:
        managed.track(_Kind(served, ""), _empty(served), obj, _writer(served, "", options), now)
    else:
        meta(obj).pop("managedFields", None)


def track_update(
    served: Served, part: str, obj: Object, old: Object, options: WriteOptions, now: str
) -> None:
    """Writes into `obj`, which is to replace `old` or a part of it, who owns its fields from now on."""
    if options.field_manager:
        managed.track(_Kind(served, part), old, obj, _writer(served, part, options), now)
        return
    before = old["metadata"].get("managedFields")
    if before is None:
        meta(obj).pop("managedFields", None)
    else:
        meta(obj)["managedFields"] = before


def apply(
    served: Served, part: str, live: Object | None, applied: Object, options: WriteOptions, now: str
) -> Object:
    """What an applied configuration makes of the object, or of none: it takes parts of both over as they are.

    Raises ApiError 400, 409, 500.
    """
    empty = _empty(served)
    if live is None:
        live = orjson.loads(
            orjson.dumps(empty)
        )  # Which is everybody's, and what is made of it will be changed.
    if (applied.get("apiVersion"), applied.get("kind")) != (served.api_version, served.kind):
        raise bad_request(f"invalid object type: {managed.kind_text(applied)}")
    made = managed.apply(
        _Kind(served, part),
        live,
        applied,
        _writer(served, part, options),
        now,
        empty=empty,
        force=options.force,
    )
    schema = served.version.schema
    why = schema.unconvertible(made) if served.resource.builtin and not schema.fits(made) else None
    if why is not None:
        raise unconvertible(served, applied, why)
    return made


def check_applied(served: Served, applied: Object) -> None:
    """Refuses a configuration that `apply` would refuse of this kind whatever there is. Raises ApiError 400, 500."""
    managed.check_applied(_type_of(served), applied)


def unconvertible(served: Served, obj: Object, why: str) -> ApiError:
    """500, as upstream: what was applied fits the schema and is none of the kind's Go type. `why`: in Go's words."""
    if not served.resource.builtin:
        return ApiError(500, "", why)
    if why.startswith("illegal base64"):
        why = f"error decoding from json: {why}"
    text = (
        f"failed to convert new object ({managed.label(obj)}) to proper version: "
        f"unable to convert unstructured object to {managed.kind_text(obj)}: {why}"
    )
    return ApiError(500, "", text)


def _empty(served: Served) -> Object:
    """The kind's object with nothing in it, as Go's zero value is written: what a create is compared with."""
    return {**served.version.empty(), "apiVersion": served.api_version, "kind": served.kind}


def same_but_for_times(a: Object, b: Object) -> bool:
    """Whether only times of managedFields differ (upstream: IgnoreManagedFieldsTimestampsTransformer)."""
    if a.keys() != b.keys() or any(a[field] != b[field] for field in a if field != "metadata"):
        return False
    one, other = _timeless(a["metadata"]), _timeless(b["metadata"])
    return one == other


def _timeless(metadata: Object) -> Object:
    entries = metadata.get("managedFields") or ()
    bare = [{key: value for key, value in entry.items() if key != "time"} for entry in entries]
    return {**metadata, "managedFields": bare}
