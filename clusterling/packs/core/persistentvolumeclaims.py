"""PersistentVolumeClaims: what is asked of storage. Nearly nothing of them changes; a class is found where none is named.

Upstream: kubernetes pkg/registry/core/persistentvolumeclaim, ValidatePersistentVolumeClaimUpdate,
plugin/pkg/admission/storage/{storageclass/setdefault,storageobjectinuseprotection}.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import orjson
from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    forbidden_field,
    immutable_field,
    invalid_value,
    not_supported,
)
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.quantity import Quantity
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.persistentvolumes import (
    BETA_CLASS,
    attributes_class,
    class_of,
    phase,
    protect,
    release,
    short_modes,
    volume_mode,
)
from clusterling.packs.core.podspec.claims import claim_spec_problems
from clusterling.packs.core.podspec.defaults import default_claim_spec, read_resources, reading
from clusterling.registry.options import ListOptions
from clusterling.registry.strategy import Context, Strategy

FINALIZER: Final = "kubernetes.io/pvc-protection"

_DEFAULT_CLASS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_CHANGED: Final = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
_RESIZES: Final = (
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
)


class PersistentVolumeClaimStrategy(Strategy):
    has_generation = False
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        _default(new)
        if ctx.subresource == "status":
            status = new.setdefault("status", {})
            status.setdefault("phase", "Pending")
            with reading(new):
                for field in ("capacity", "allocatedResources"):
                    read_resources(status, field)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new["status"] = {"phase": "Pending"}
        _settle_sources(new["spec"], {})
        protect(new, FINALIZER)

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource != "status":
            new["status"] = old.get("status") or {}
            _settle_sources(new["spec"], old["spec"])
        else:
            new["spec"] = old["spec"]

    @override
    async def admit(self, ctx: Context, new: Object, old: Object | None) -> None:
        annotations, spec = meta(new).get("annotations") or {}, new["spec"]
        if old is None and spec.get("storageClassName") is None and BETA_CLASS not in annotations:
            name = await _default_class(ctx)
            if name:
                spec["storageClassName"] = name

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(claim_spec_problems(new["spec"], "spec"))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            return _status_problems(new.get("status") or {})
        return [*self.validate(ctx, new), *_change_problems(new, old)]

    @override
    def begin_delete(self, ctx: Context, obj: Object) -> bool:
        # Who binds claims also looks after those in use; of others no pod can run.
        if (obj.get("status") or {}).get("phase") != "Bound":
            release(obj, FINALIZER)
        return False

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"name": name_of(obj)}

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if ctx.subresource or BETA_CLASS not in (meta(new).get("annotations") or {}):
            return ()
        text = 'deprecated since v1.8; use "storageClassName" attribute instead'
        return (f"metadata.annotations[{BETA_CLASS}]: {text}",)


def _default(new: Object) -> None:
    with reading(new):
        default_claim_spec(new.setdefault("spec", {}))
    # Written by Go even where they are not there.
    for field in ("dataSource", "dataSourceRef"):
        if new["spec"].get(field) is not None:
            new["spec"][field].setdefault("apiGroup", None)
    for condition in (new.get("status") or {}).get("conditions") or ():
        for field in ("lastProbeTime", "lastTransitionTime"):
            condition.setdefault(field, None)


def _settle_sources(spec: Object, old: Object) -> None:
    """The two fields that say what a volume begins with say the same (KEP-1495)."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    in_use = old.get("dataSource") is not None or old.get("dataSourceRef") is not None
    if source is not None and reference is None and not in_use:
        kind, group = source.get("kind"), source.get("apiGroup") or ""
        wanted = {"PersistentVolumeClaim": "", "VolumeSnapshot": "snapshot.storage.k8s.io"}
        if wanted.get(kind or "") != group:
            source = spec.pop("dataSource") and None
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif reference is not None and source is None and not reference.get("namespace"):
        spec["dataSource"] = {key: value for key, value in reference.items() if key != "namespace"}


async def _default_class(ctx: Context) -> str:
    """The name of the newest of the classes that are marked as default, "" where none is."""
    served = ctx.catalog.find("storage.k8s.io", "v1", "storageclasses")
    if served is None:
        return ""
    newest = ("", "")
    for value in (await ctx.objects.list(served, "", ListOptions())).values:
        if not any(mark.encode() in value for mark in _DEFAULT_CLASS):
            continue
        metadata = orjson.loads(value)["metadata"]
        annotations = metadata.get("annotations") or {}
        if any(annotations.get(mark) == "true" for mark in _DEFAULT_CLASS):
            created = metadata["creationTimestamp"]
            # Listed by name, so that of two made in one second the first stays.
            if created > newest[0]:
                newest = (created, metadata["name"])
    return newest[1]


def _size(obj: Object, part: str = "spec") -> Quantity:
    where = obj[part].get("resources") or {} if part == "spec" else obj.get("status") or {}
    sizes = where.get("requests" if part == "spec" else "capacity") or {}
    return Quantity.parse(sizes.get("storage", "0"))


def _change_problems(new: Object, old: Object) -> list[FieldError]:
    spec, before = copy.deepcopy(new["spec"]), copy.deepcopy(old["spec"])
    found: list[FieldError] = []
    if not before.get("volumeName") and spec.get("volumeName"):
        before["volumeName"] = spec["volumeName"]
    beta, was = ((meta(one).get("annotations") or {}).get(BETA_CLASS) or "" for one in (new, old))
    if (
        was
        and not before.get("storageClassName")
        and spec.get("storageClassName") == was
        and beta in ("", was)
    ):
        spec.pop("storageClassName")
    else:
        if beta != was:
            found.append(immutable_field(f"metadata.annotations[{BETA_CLASS}]", beta))
        if before.get("storageClassName") is None and not was and spec.get("storageClassName"):
            before["storageClassName"] = spec["storageClassName"]
    if (new.get("status") or {}).get("phase") == "Bound":
        for one in (spec, before):
            one.pop("volumeAttributesClassName", None)
            ((one.get("resources") or {}).get("requests") or {}).pop("storage", None)
    if spec != before:
        found.append(forbidden_field("spec", _CHANGED))
    where = "spec.resources.requests.storage"
    if _size(new) < _size(old) and _size(new) <= _size(old, "status"):
        found.append(forbidden_field(where, "field can not be less than status.capacity"))
    if new["spec"].get("volumeMode") != old["spec"].get("volumeMode"):
        found.append(immutable_field("volumeMode", new["spec"].get("volumeMode")))
    return found + _attributes_change_problems(new, old)


def _attributes_change_problems(new: Object, old: Object) -> list[FieldError]:
    field = "volumeAttributesClassName"
    name = new["spec"].get(field)
    if name == old["spec"].get(field) or name:
        return []
    if (old.get("status") or {}).get("currentVolumeAttributesClassName") is None:
        return []
    what = "nil" if name is None else "empty string"
    why = f"update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"
    return [forbidden_field(f"spec.{field}", why)]


def _status_problems(status: Object) -> list[FieldError]:
    found = [
        invalid_value(f"status.capacity[{name}]", amount.rounded_up(), "must be a valid resource quantity")
        for name, text in (status.get("capacity") or {}).items()
        if (amount := Quantity.parse(text)).rounded_up() < 0
    ]
    for field in ("allocatedResourceStatuses", "allocatedResources"):
        for name, value in (status.get(field) or {}).items():
            path = f"status.{field}"
            if name != "storage":
                found += _resource_name_problems(name, path)
            if field == "allocatedResourceStatuses" and value not in _RESIZES:
                found.append(not_supported(path, name, sorted(_RESIZES)))
    return found


def _resource_name_problems(name: str, path: str) -> list[FieldError]:
    prefix, slash, _ = name.partition("/")
    if not slash or "kubernetes.io" in prefix or is_dns1123_subdomain(prefix):
        return [not_supported(path, name, ("storage",))]
    return []


def _when_bound(obj: Object, text: str) -> str:
    return text if obj["spec"].get("volumeName") else ""


def _capacity(obj: Object, _now: datetime) -> str:
    return _when_bound(obj, str(((obj.get("status") or {}).get("capacity") or {}).get("storage", "0")))


def _modes(obj: Object, _now: datetime) -> str:
    return _when_bound(obj, short_modes((obj.get("status") or {}).get("accessModes")))


PERSISTENTVOLUMECLAIMS: Final = builtin.resource(
    "",
    "v1",
    "persistentvolumeclaims",
    strategy=PersistentVolumeClaimStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Status", "string", phase),
        Column("Volume", "string", lambda obj, _: obj["spec"].get("volumeName", "")),
        Column("Capacity", "string", _capacity),
        Column("Access Modes", "string", _modes),
        Column("StorageClass", "string", class_of),
        Column("VolumeAttributesClass", "string", attributes_class),
        builtin.AGE,
        Column("VolumeMode", "string", volume_mode, priority=1),
    ),
)
