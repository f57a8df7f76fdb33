"""storage.k8s.io/v1: classes of storage and of its attributes, what drivers tell of themselves, attachments.

Upstream: kubernetes pkg/apis/storage (validation, defaults), pkg/registry/storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    immutable_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.names import (
    is_dns1123_subdomain,
    is_dns1123_subdomain_in_any_case,
    is_qualified_name,
)
from clusterling.machinery.quantity import Quantity
from clusterling.machinery.table import CREATED_DESCRIPTION, NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.persistentvolumes import protect, release, spec_problems
from clusterling.packs.core.podspec.defaults import read_quantity, reading
from clusterling.packs.core.podspec.rules import Problems, items, named
from clusterling.packs.core.podspec.volumes import driver_name_problems
from clusterling.packs.split import SplitStrategy
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import RESETS_METADATA, Context, Strategy

GROUP: Final = "storage.k8s.io"
ATTRIBUTES_FINALIZER: Final = "kubernetes.io/vac-protection"

_PARAMETERS_MAX: Final = 512
_PARAMETERS_BYTES_MAX: Final = 256 << 10
_NODE_ID_BYTES_MAX: Final = 256
_ERROR_BYTES_MAX: Final = 1024
_TOKEN_SECONDS: Final = (600, 1 << 32)
_PERIOD_SECONDS_MIN: Final = 10
_BINDING_MODES: Final = ("Immediate", "WaitForFirstConsumer")
_GROUP_POLICIES: Final = ("File", "None", "ReadWriteOnceWithFSType")
_LIFECYCLES: Final = ("Persistent", "Ephemeral")


def parameter_problems(given: Mapping[str, str], path: str, *, may_be_empty: bool) -> Problems:
    if len(given) > _PARAMETERS_MAX:
        yield too_long(path, _PARAMETERS_MAX)
        return
    if "" in given:
        yield invalid_value(path, "", "field can not be empty.")
    if sum(len(key.encode()) + len(value.encode()) for key, value in given.items()) > _PARAMETERS_BYTES_MAX:
        yield too_long(path, _PARAMETERS_BYTES_MAX)
    if not given and not may_be_empty:
        yield required(path, "must contain at least one key/value pair")


def _driver_problems(name: str, path: str) -> Problems:
    if name:
        yield from named(name.lower(), path, is_qualified_name)


# ---------------------------------------------------------------------- classes


class StorageClassStrategy(Strategy):
    has_generation = False
    returns_deleted_object = True
    _fixed: Final = ("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode")

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("provisioner", "")
        new.setdefault("reclaimPolicy", "Delete")
        new.setdefault("volumeBindingMode", "Immediate")

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [*_class_problems(new), *_declared_class_problems(new)]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        changed = [
            immutable_field(field, None)
            for field in self._fixed
            if (new.get(field) or None) != (old.get(field) or None)
        ]
        return [*_class_problems(new), *_declared_class_problems(new), *changed]


def _class_problems(new: Object) -> Problems:
    yield from _driver_problems(new["provisioner"], "provisioner")
    yield from parameter_problems(new.get("parameters") or {}, "parameters", may_be_empty=True)
    if new["reclaimPolicy"] not in ("", "Delete", "Retain"):
        yield not_supported("reclaimPolicy", new["reclaimPolicy"], ("Delete", "Retain"))
    if new["volumeBindingMode"] not in _BINDING_MODES:
        yield not_supported("volumeBindingMode", new["volumeBindingMode"], _BINDING_MODES)
    # Upstream's list begins with as many empty terms as there are: an empty one is always there already.
    terms: list[dict[str, frozenset[str]]] = [{} for _ in new.get("allowedTopologies") or ()]
    for here, term in items(new, "allowedTopologies", ""):
        path = here.removeprefix(".")
        values: dict[str, frozenset[str]] = {}
        for where, one in items(term, "matchLabelExpressions", path):
            yield from _topology_problems(one, where)
            if (one.get("key") or "") in values:
                yield duplicate(f"{where}.key", one.get("key") or "")
            values[one.get("key") or ""] = frozenset(one.get("values") or ())
        for _ in range(terms.count(values)):
            yield duplicate(f"{path}.matchLabelExpressions", "")
        terms.append(values)


def _declared_class_problems(new: Object) -> Problems:
    if not new["provisioner"]:
        yield required("provisioner")


def _topology_problems(requirement: Object, path: str) -> Problems:
    values = requirement.get("values") or ()
    if not values:
        yield required(f"{path}.values")
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield duplicate(f"{path}.values[{index}]", value)
        seen.add(value)
    yield from named(requirement.get("key") or "", f"{path}.key", is_qualified_name)


class VolumeAttributesClassStrategy(Strategy):
    has_generation = False
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("driverName", "")

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        protect(new, ATTRIBUTES_FINALIZER)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        found = [*_driver_problems(new["driverName"], "driverName")]
        if not new["driverName"]:
            found.append(required("driverName"))
        found += parameter_problems(new.get("parameters") or {}, "parameters", may_be_empty=False)
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        changed = [
            forbidden_field(field, f"updates to {field} are forbidden.")
            for field in ("driverName", "parameters")
            if new.get(field) != old.get(field)
        ]
        return [*changed, *self.validate(ctx, new)]

    @override
    def begin_delete(self, ctx: Context, obj: Object) -> bool:
        release(obj, ATTRIBUTES_FINALIZER)
        return False


# ---------------------------------------------------------------------- drivers


class CsiDriverStrategy(Strategy):
    returns_deleted_object = True
    allow_unconditional_update = False
    _defaults: Final[Mapping[str, Any]] = {
        "attachRequired": True,
        "podInfoOnMount": False,
        "storageCapacity": False,
        "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "requiresRepublish": False,
        "seLinuxMount": False,
        "preventPodSchedulingIfMissing": False,
    }

    @override
    def read(self, ctx: Context, new: Object) -> None:
        spec = new.setdefault("spec", {})
        for field, value in self._defaults.items():
            spec.setdefault(field, value)
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        # It has none before its first change.
        meta(new).pop("generation", None)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(_csi_driver_problems(new["spec"]))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        spec, before = new["spec"], old["spec"]
        found = list(self.validate(ctx, new))
        for field, shown in (
            ("attachRequired", "attachedRequired"),
            ("volumeLifecycleModes", "volumeLifecycleModes"),
        ):
            if spec[field] != before[field]:
                found.append(immutable_field(f"spec.{shown}", spec[field]))
        return found

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        spec = new["spec"]
        requests = spec.get("tokenRequests")
        if not requests or spec.get("serviceAccountTokenInSecrets") is not None:
            return ()
        if old is not None and old["spec"].get("tokenRequests") == requests:
            return ()
        return (
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent "
            "possible logging of tokens in volume attributes",
        )


def _csi_driver_problems(spec: Object) -> Problems:
    if spec["fsGroupPolicy"] not in _GROUP_POLICIES:
        yield not_supported("spec.fsGroupPolicy", spec["fsGroupPolicy"], _GROUP_POLICIES)
    audiences: set[str] = set()
    for path, request in items(spec, "tokenRequests", "spec"):
        audience, seconds = request.get("audience") or "", request.get("expirationSeconds")
        if audience in audiences:
            yield duplicate(f"{path}.audience", audience)
            continue
        audiences.add(audience)
        if seconds is None:
            continue
        least, most = _TOKEN_SECONDS
        if seconds < least:
            why = "may not specify a duration less than 10 minutes"
            yield invalid_value(f"{path}.expirationSeconds", seconds, why)
        if seconds > most:
            why = "may not specify a duration larger than 2^32 seconds"
            yield invalid_value(f"{path}.expirationSeconds", seconds, why)
    for mode in spec["volumeLifecycleModes"]:
        if mode not in _LIFECYCLES:
            yield not_supported("spec.volumeLifecycleModes", mode, _LIFECYCLES)
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < _PERIOD_SECONDS_MIN:
        why = "must be greater than or equal to 10 seconds"
        yield invalid_value("spec.nodeAllocatableUpdatePeriodSeconds", period, why)
    in_secrets = spec.get("serviceAccountTokenInSecrets")
    if in_secrets is not None and not spec.get("tokenRequests"):
        why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
        yield invalid_value("spec.serviceAccountTokenInSecrets", in_secrets, why)


class CsiNodeStrategy(Strategy):
    resets = RESETS_METADATA
    has_generation = False
    returns_deleted_object = True
    allow_unconditional_update = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        spec = new.setdefault("spec", {})
        spec["drivers"] = spec.get("drivers") or None
        for driver in new["spec"]["drivers"] or ():
            driver.setdefault("topologyKeys", None)
        # Its only field is behind the feature gate CSIVolumeHealth, which is off by default.
        new["status"] = {}

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        found: list[FieldError] = []
        names: set[str] = set()
        for path, driver in items(new["spec"], "drivers", "spec"):
            found += _csi_node_problems(driver, path)
            name = driver.get("name") or ""
            if name in names:
                found.append(duplicate(f"{path}.name", name))
            names.add(name)
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource:
            return ()
        found = list(self.validate(ctx, new))
        before = {one.get("name"): one for one in old["spec"]["drivers"] or ()}
        for driver in new["spec"]["drivers"] or ():
            was = before.get(driver.get("name"))
            if was is not None and _fixed_of(driver) != _fixed_of(was):
                found.append(immutable_field("spec.drivers", _fixed_of(driver)))
        return found


def _fixed_of(driver: Object) -> Object:
    return {field: value for field, value in driver.items() if field != "allocatable"}


def _csi_node_problems(driver: Object, path: str) -> Problems:
    yield from driver_name_problems(driver.get("name") or "", f"{path}.name")
    node = driver.get("nodeID") or ""
    if not node:
        yield required(f"{path}.nodeID")
    if len(node.encode()) > _NODE_ID_BYTES_MAX:
        yield invalid_value(f"{path}.nodeID", node, f"must be {_NODE_ID_BYTES_MAX} characters or less")
    count = (driver.get("allocatable") or {}).get("count")
    if count is not None and count < 0:
        yield invalid_value(f"{path}.allocatable.count", count, "must be greater than or equal to 0")
    keys: set[str] = set()
    for key in driver.get("topologyKeys") or ():
        if not key:
            yield required(path)
        if key in keys:
            yield duplicate(path, key)
        keys.add(key)
        yield from named(key, path, is_qualified_name)


class CsiStorageCapacityStrategy(Strategy):
    has_generation = False
    allow_unconditional_update = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("storageClassName", "")
        with reading(new):
            for field in ("capacity", "maximumVolumeSize"):
                read_quantity(new, field)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return self._problems(new, any_value=False)

    def _problems(self, new: Object, *, any_value: bool) -> list[FieldError]:
        found = label_selector_problems(new.get("nodeTopology"), "nodeTopology", any_value=any_value)
        found += named(new["storageClassName"], "storageClassName", is_dns1123_subdomain)
        capacity = new.get("capacity")
        if capacity is not None and Quantity.parse(capacity) < Quantity(0):
            found.append(invalid_value("capacity", capacity, "must be greater than or equal to 0"))
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        lenient = bool(label_selector_problems(old.get("nodeTopology"), ""))
        changed = [
            immutable_field(field, new.get(field))
            for field in ("nodeTopology", "storageClassName")
            if new.get(field) != old.get(field)
        ]
        return [*self._problems(new, any_value=lenient), *changed]


# ---------------------------------------------------------------------- attachments


class VolumeAttachmentStrategy(SplitStrategy):
    resets = RESETS_METADATA
    has_generation = False
    returns_deleted_object = True
    allow_unconditional_update = False

    @override
    def complete(self, ctx: Context, new: Object) -> None:
        new.setdefault("spec", {}).setdefault("source", {})

    @override
    def complete_status(self, new: Object) -> None:
        new.setdefault("status", {}).setdefault("attached", False)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [*_attachment_problems(new["spec"]), *_attachment_status_problems(new["status"])]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        found = list(self.validate(ctx, new))
        if new["spec"] != old["spec"]:
            found.append(immutable_field("spec", None))
        return found


def _attachment_problems(spec: Object) -> Problems:
    source = spec["source"]
    volume, inline, path = source.get("persistentVolumeName"), source.get("inlineVolumeSpec"), "spec.source"
    attacher = spec.get("attacher") or ""
    declared = list(named(attacher, "spec.attacher", is_dns1123_subdomain_in_any_case))
    if not attacher:
        declared = [required("spec.attacher")]
    if (volume is None) is (inline is None):
        why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        yield required(path, why) if volume is None else forbidden_field(path, why)
    elif inline is not None:
        yield from spec_problems(inline, f"{path}.inlineVolumeSpec", inline=True)
    elif not volume:
        yield required(f"{path}.persistentVolumeName", "must specify non empty persistentVolumeName")
    yield from named(spec.get("nodeName") or "", "spec.nodeName", is_dns1123_subdomain)
    if volume is not None:
        yield from named(volume, f"{path}.persistentVolumeName", is_dns1123_subdomain)
    yield from declared


def _attachment_status_problems(status: Object) -> Problems:
    metadata = status.get("attachmentMetadata") or {}
    if (
        sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
        > _PARAMETERS_BYTES_MAX
    ):
        yield too_long("status.attachmentMetadata", _PARAMETERS_BYTES_MAX)
    for field in ("attachError", "detachError"):
        error = status.get(field) or {}
        if len((error.get("message") or "").encode()) > _ERROR_BYTES_MAX:
            yield too_long(f"status.{field}.message", _ERROR_BYTES_MAX)
        code = error.get("errorCode")
        if code is not None and code < 0:
            yield invalid_value(
                f"status.{field}.errorCode", code, "must be between 0 and 2147483647, inclusive"
            )


# ---------------------------------------------------------------------- columns


def _token_requests(obj: Object, _now: datetime) -> str:
    requests = obj["spec"].get("tokenRequests")
    return "<unset>" if requests is None else ",".join(one.get("audience", "") for one in requests)


def _modes(obj: Object, _now: datetime) -> str:
    return ",".join(obj["spec"].get("volumeLifecycleModes") or ()) or "<none>"


STORAGECLASSES: Final = builtin.resource(
    GROUP,
    "v1",
    "storageclasses",
    strategy=StorageClassStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Provisioner", "string", builtin.at("provisioner")),
        Column("ReclaimPolicy", "string", builtin.at("reclaimPolicy", absent="Delete")),
        Column("VolumeBindingMode", "string", builtin.at("volumeBindingMode", absent="Immediate")),
        Column("AllowVolumeExpansion", "string", builtin.at("allowVolumeExpansion", absent=False)),
        builtin.AGE,
    ),
)
VOLUMEATTRIBUTESCLASSES: Final = builtin.resource(
    GROUP,
    "v1",
    "volumeattributesclasses",
    strategy=VolumeAttributesClassStrategy(),
    columns=(NAME_COLUMN, Column("DriverName", "string", builtin.at("driverName")), builtin.AGE),
)
CSIDRIVERS: Final = builtin.resource(
    GROUP,
    "v1",
    "csidrivers",
    strategy=CsiDriverStrategy(),
    columns=(
        NAME_COLUMN,
        Column("AttachRequired", "boolean", builtin.at("spec", "attachRequired", absent=True)),
        Column("PodInfoOnMount", "boolean", builtin.at("spec", "podInfoOnMount", absent=False)),
        Column("StorageCapacity", "boolean", builtin.at("spec", "storageCapacity", absent=False)),
        Column("TokenRequests", "string", _token_requests),
        Column("RequiresRepublish", "boolean", builtin.at("spec", "requiresRepublish", absent=False)),
        Column("Modes", "string", _modes),
        builtin.AGE,
    ),
)
CSINODES: Final = builtin.resource(
    GROUP,
    "v1",
    "csinodes",
    strategy=CsiNodeStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Drivers", "integer", lambda obj, _: len(obj["spec"].get("drivers") or ())),
        builtin.AGE,
    ),
)
CSISTORAGECAPACITIES: Final = builtin.resource(
    GROUP,
    "v1",
    "csistoragecapacities",
    strategy=CsiStorageCapacityStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Created At", "date", builtin.at("metadata", "creationTimestamp"), "", CREATED_DESCRIPTION),
    ),
)
VOLUMEATTACHMENTS: Final = builtin.resource(
    GROUP,
    "v1",
    "volumeattachments",
    strategy=VolumeAttachmentStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Attacher", "string", builtin.at("spec", "attacher"), "name"),
        Column("PV", "string", builtin.at("spec", "source", "persistentVolumeName")),
        Column("Node", "string", builtin.at("spec", "nodeName")),
        Column("Attached", "boolean", builtin.at("status", "attached", absent=False)),
        builtin.AGE,
    ),
)

PACK: Final = Pack(
    "storage",
    (
        CSIDRIVERS,
        CSINODES,
        CSISTORAGECAPACITIES,
        STORAGECLASSES,
        VOLUMEATTACHMENTS,
        VOLUMEATTRIBUTESCLASSES,
    ),
)
