"""PersistentVolumes: sizes of storage that claims are bound to, by whoever plays the volume controller.

Upstream: kubernetes pkg/registry/core/persistentvolume, ValidatePersistentVolumeSpec, pkg/api/persistentvolume.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    forbidden_field,
    immutable_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.meta import Object, meta, name_of, rfc3339
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.quantity import Quantity
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.podspec.claims import ACCESS_MODES, VOLUME_MODES
from clusterling.packs.core.podspec.defaults import read_resources, reading
from clusterling.packs.core.podspec.rules import (
    Problems,
    descending_path,
    named,
    needs,
    no_backsteps,
    one_of,
)
from clusterling.packs.core.podspec.scheduling import node_selector_problems
from clusterling.packs.core.podspec.volumes import (
    driver_name_problems,
    fibre_channel_problems,
    iscsi_problems,
)
from clusterling.registry.strategy import Context, Strategy

FINALIZER: Final = "kubernetes.io/pv-protection"
BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"

_MOUNT_OPTIONS: Final = "volume.beta.kubernetes.io/mount-options"
# The volume types, in the order in which upstream looks for them.
SOURCES: Final = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte",
    "cephfs", "iscsi", "cinder", "fc", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume",
    "azureDisk", "scaleIO", "local", "storageos", "csi",
)  # fmt: skip
_MOUNTABLE: Final = frozenset(SOURCES) - {
    "hostPath", "flocker", "fc", "portworxVolume", "scaleIO", "local", "storageos", "csi",
}  # fmt: skip
_RECLAIM: Final = ("Delete", "Recycle", "Retain")
_HOST_PATH_TYPES: Final = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_SECRETS: Final = (
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeExpandSecretRef",
)
_SHORT_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_DEPRECATED_ANNOTATIONS: Final = {
    BETA_CLASS: 'deprecated since v1.8; use "storageClassName" attribute instead',
    _MOUNT_OPTIONS: 'deprecated since v1.31; use "mountOptions" attribute instead',
}
_DEPRECATED_SOURCES: Final = {
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}


def protect(obj: Object, finalizer: str) -> None:
    """Adds the finalizer by which a controller keeps what is in use (upstream: storageobjectinuseprotection)."""
    finalizers = meta(obj).setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def release(obj: Object, finalizer: str) -> None:
    """Takes it off, in the place of that controller, of what is being deleted and nobody uses."""
    metadata = meta(obj)
    kept = [one for one in metadata.get("finalizers") or () if one != finalizer]
    if kept:
        metadata["finalizers"] = kept
    else:
        metadata.pop("finalizers", None)


class PersistentVolumeStrategy(Strategy):
    has_generation = False
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        _default(new)
        if ctx.subresource == "status":
            new.setdefault("status", {}).setdefault("phase", "Pending")

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        now = rfc3339(ctx.ports.clock.now())
        new["status"] = {"phase": "Pending", "lastPhaseTransitionTime": now}
        protect(new, FINALIZER)

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        before = old.get("status") or {}
        if ctx.subresource != "status":
            new["status"] = before
            return
        new["spec"] = old["spec"]
        status, field = new["status"], "lastPhaseTransitionTime"
        same_time = status.get(field) in (None, before.get(field))
        if status["phase"] != before.get("phase") and same_time:
            status[field] = rfc3339(ctx.ports.clock.now())
        elif status.get(field) is None and before.get(field) is not None:
            status[field] = before[field]

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [*spec_problems(new["spec"], "spec"), *_mount_problems(new)]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            return ()
        found = list(self.validate(ctx, new))
        spec, before = new["spec"], old["spec"]
        if _source_of(spec, before) != _source_of(before, before):
            why = "spec.persistentvolumesource is immutable after creation"
            found.append(forbidden_field("spec.persistentvolumesource", why))
        if spec.get("volumeMode") != before.get("volumeMode"):
            found.append(immutable_field("volumeMode", spec.get("volumeMode")))
        field = "volumeAttributesClassName"
        if before.get(field) is not None and spec.get(field) is None:
            found.append(forbidden_field(f"spec.{field}", "update from non-nil value to nil is forbidden"))
        return found

    @override
    def begin_delete(self, ctx: Context, obj: Object) -> bool:
        if (obj.get("status") or {}).get("phase") != "Bound":
            release(obj, FINALIZER)
        return False

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"name": name_of(obj)}

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if ctx.subresource:
            return ()
        annotations, spec = meta(new).get("annotations") or {}, new["spec"]
        found = [
            f"metadata.annotations[{key}]: {text}"
            for key, text in _DEPRECATED_ANNOTATIONS.items()
            if key in annotations
        ]
        if spec["persistentVolumeReclaimPolicy"] == "Recycle":
            found.append(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "
                "Instead, the recommended approach is to use dynamic provisioning."
            )
        shown = {"storageos": "storageOS"}
        found += [
            f"spec.{shown.get(one, one)}: {text}" for one, text in _DEPRECATED_SOURCES.items() if one in spec
        ]
        return found


def _default(new: Object) -> None:
    spec = new.setdefault("spec", {})
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    spec.setdefault("volumeMode", "Filesystem")
    if spec.get("hostPath") is not None:
        spec["hostPath"].setdefault("type", "")
    with reading(new):
        read_resources(spec, "capacity")


def _source_of(spec: Object, old: Object) -> Object:
    """What may not change of the volume; a CSI volume may be given the secret by which it is expanded, once."""
    found = {field: spec[field] for field in SOURCES if spec.get(field) is not None}
    if "csi" in found and (old.get("csi") or {}).get("controllerExpandSecretRef") is None:
        found["csi"] = {k: v for k, v in found["csi"].items() if k != "controllerExpandSecretRef"}
    return found


def spec_problems(spec: Object, path: str, *, inline: bool = False) -> Problems:
    """What is wrong with a PersistentVolumeSpec. `inline`: it stands in a VolumeAttachment, not in a volume."""
    if inline:
        yield from _inline_problems(spec, path)
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(f"{path}.accessModes")
    for mode in modes:
        yield from one_of(mode, f"{path}.accessModes", ACCESS_MODES)
    if "ReadWriteOncePod" in modes and set(modes) & set(ACCESS_MODES) - {"ReadWriteOncePod"}:
        why = "may not use ReadWriteOncePod with other access modes"
        yield forbidden_field(f"{path}.accessModes", why)
    if not inline:
        yield from _capacity_problems(spec.get("capacity") or {}, f"{path}.capacity")
        yield from one_of(
            spec["persistentVolumeReclaimPolicy"], f"{path}.persistentVolumeReclaimPolicy", _RECLAIM
        )
        yield from _affinity_problems(spec.get("nodeAffinity"), f"{path}.nodeAffinity")
    yield from _source_problems(spec, path)
    host_path, policy = (spec.get("hostPath") or {}).get("path"), spec.get("persistentVolumeReclaimPolicy")
    if policy == "Recycle" and host_path and posixpath.normpath(host_path) in ("/", "//"):
        why = "may not be 'recycle' for a hostPath mount of '/'"
        yield forbidden_field(f"{path}.persistentVolumeReclaimPolicy", why)
    if not inline:
        if spec.get("storageClassName"):
            yield from named(spec["storageClassName"], f"{path}.storageClassName", is_dns1123_subdomain)
        yield from one_of(spec["volumeMode"], f"{path}.volumeMode", VOLUME_MODES)
    yield from _attributes_problems(spec, path)


def _inline_problems(spec: Object, path: str) -> Problems:
    why = "may not be specified in the context of inline volumes"
    for field in ("claimRef", "capacity", "nodeAffinity", "storageClassName"):
        if spec.get(field):
            yield forbidden_field(f"{path}.{field}", why)
    if spec.get("csi") is None:
        yield required(f"{path}.csi", "has to be specified in the context of inline volumes")
    if spec.get("persistentVolumeReclaimPolicy") not in (None, "", "Retain"):
        where = f"{path}.persistentVolumeReclaimPolicy"
        yield forbidden_field(where, "may only be Retain in the context of inline volumes")
    if spec.get("volumeMode") not in (None, "Filesystem"):
        why = "may not specify volumeMode other than Filesystem in the context of inline volumes"
        yield forbidden_field(f"{path}.volumeMode", why)


def _capacity_problems(capacity: Object, path: str) -> Problems:
    if not capacity:
        yield required(path)
    if "storage" not in capacity or len(capacity) > 1:
        yield not_supported(path, capacity or None, ["storage"])
    for name, text in capacity.items():
        amount = Quantity.parse(text)
        if amount.rounded_up() < 0:
            yield invalid_value(f"{path}[{name}]", amount.rounded_up(), "must be a valid resource quantity")
        if amount <= Quantity(0):
            yield invalid_value(f"{path}[{name}]", text, "must be greater than zero")


def _affinity_problems(affinity: Object | None, path: str) -> Problems:
    if affinity is None:
        return
    if affinity.get("required") is None:
        yield required(f"{path}.required", "must specify required node constraints")
    else:
        yield from node_selector_problems(affinity["required"], f"{path}.required")


def _source_problems(spec: Object, path: str) -> Problems:
    given = [field for field in SOURCES if spec.get(field) is not None]
    for extra in given[1:]:
        yield forbidden_field(f"{path}.{extra}", "may not specify more than 1 volume type")
    if not given:
        yield required(path, "must specify a volume type")
        return
    source, here = spec[given[0]], f"{path}.{given[0]}"
    match given[0]:
        case "hostPath":
            yield from needs(source, here, "path")
            if source.get("path"):
                yield from no_backsteps(source["path"], f"{here}.path")
                yield from one_of(source.get("type") or "", f"{here}.type", _HOST_PATH_TYPES)
        case "local":
            yield from needs(source, here, "path")
            if source.get("path"):
                yield from no_backsteps(source["path"], f"{here}.path")
            if spec.get("nodeAffinity") is None:
                yield required(f"{path}.nodeAffinity", "Local volume requires node affinity")
        case "nfs":
            yield from needs(source, here, "server", "path")
            if not (source.get("path") or "").startswith("/"):
                yield invalid_value(f"{here}.path", source.get("path") or "", "must be an absolute path")
        case "csi":
            yield from driver_name_problems(source.get("driver") or "", f"{here}.driver")
            yield from needs(source, here, "volumeHandle")
            for field in _SECRETS:
                if source.get(field) is not None:
                    yield from needs(source[field], f"{here}.{field}", "name", "namespace")
        case other:
            yield from _other_problems(other, source, here)


# What each of the other types must say; those have no plugin any more that would look at the rest.
_NEEDED: Final = {
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "glusterfs": ("endpoints", "path"),
    "rbd": ("monitors", "image"),
    "quobyte": ("registry", "volume"),
    "cephfs": ("monitors",),
    "cinder": ("volumeID",),
    "azureFile": ("secretName", "shareName"),
    "vsphereVolume": ("volumePath",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "scaleIO": ("gateway", "system", "volumeName"),
}


def _other_problems(kind: str, source: Object, path: str) -> Problems:
    if kind == "iscsi":
        yield from iscsi_problems(source, path, "must be valid format")
        return
    if kind == "fc":
        yield from fibre_channel_problems(source, path)
        return
    yield from needs(source, path, *_NEEDED.get(kind, ()))
    if kind == "scaleIO" and source.get("secretRef") is None:
        yield required(f"{path}.secretRef")
    if kind == "portworxVolume" and source.get("volumePath"):
        yield from descending_path(source["volumePath"], f"{path}.volumePath")


def _attributes_problems(spec: Object, path: str) -> Problems:
    name, where = spec.get("volumeAttributesClassName"), f"{path}.volumeAttributesClassName"
    if name is None:
        return
    if not name:
        yield required(where, "an empty string is disallowed")
    else:
        yield from named(name, where, is_dns1123_subdomain)
    if spec.get("csi") is None:
        yield required(f"{path}.csi", "has to be specified when using volumeAttributesClassName")


def _mount_problems(new: Object) -> Iterable[FieldError]:
    if _MOUNT_OPTIONS not in (meta(new).get("annotations") or {}) or new["spec"].keys() & _MOUNTABLE:
        return ()
    why = "may not specify mount options for this volume type"
    return (forbidden_field(f"metadata.annotations.{_MOUNT_OPTIONS}", why),)


def short_modes(modes: Iterable[str] | None) -> str:
    """Access modes as Tables have them: `RWO,ROX`."""
    given = set(modes or ())
    return ",".join(short for mode, short in _SHORT_MODES.items() if mode in given)


def phase(obj: Object, _now: datetime) -> str:
    if "deletionTimestamp" in meta(obj):
        return "Terminating"
    return str((obj.get("status") or {}).get("phase") or "")


def class_of(obj: Object, _now: datetime) -> str:
    """The storage class, by the annotation of old where there is one."""
    annotations = meta(obj).get("annotations") or {}
    return str(annotations.get(BETA_CLASS) or obj["spec"].get("storageClassName") or "")


def _capacity(obj: Object, _now: datetime) -> str:
    return str((obj["spec"].get("capacity") or {}).get("storage", "0"))


def _claim(obj: Object, _now: datetime) -> str:
    claim = obj["spec"].get("claimRef")
    return "" if claim is None else f"{claim.get('namespace', '')}/{claim.get('name', '')}"


def attributes_class(obj: Object, _now: datetime) -> str:
    return str(obj["spec"].get("volumeAttributesClassName") or "<unset>")


def volume_mode(obj: Object, _now: datetime) -> str:
    return str(obj["spec"].get("volumeMode") or "<unset>")


def _reason(obj: Object, _now: datetime) -> str:
    return str((obj.get("status") or {}).get("reason") or "")


PERSISTENTVOLUMES: Final = builtin.resource(
    "",
    "v1",
    "persistentvolumes",
    strategy=PersistentVolumeStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Capacity", "string", _capacity),
        Column("Access Modes", "string", lambda obj, _: short_modes(obj["spec"].get("accessModes"))),
        Column(
            "Reclaim Policy", "string", lambda obj, _: obj["spec"].get("persistentVolumeReclaimPolicy", "")
        ),
        Column("Status", "string", phase),
        Column("Claim", "string", _claim),
        Column("StorageClass", "string", class_of),
        Column("VolumeAttributesClass", "string", attributes_class),
        Column("Reason", "string", _reason),
        builtin.AGE,
        Column("VolumeMode", "string", volume_mode, priority=1),
    ),
)
