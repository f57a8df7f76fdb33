"""resource.k8s.io/v1: claims of devices, their classes, what drivers offer, taints. Nothing is allocated here; whoever allocates writes status.

Upstream: kubernetes pkg/apis/resource (validation, defaults), pkg/registry/resource. Expressions (CEL selectors) are
held to be there and not compiled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_interface
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    GoStruct,
    duplicate,
    forbidden_field,
    immutable_field,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
)
from clusterling.machinery.meta import Object, rfc3339
from clusterling.machinery.names import (
    is_c_identifier,
    is_dns1123_label,
    is_dns1123_subdomain,
    is_dns1123_subdomain_in_any_case,
    is_label_value,
    is_qualified_name,
)
from clusterling.machinery.objectmeta import validate_labels
from clusterling.machinery.table import NAME_COLUMN, Column, age
from clusterling.packs import builtin
from clusterling.packs.conditions import complete_conditions, condition_problems
from clusterling.packs.core.podspec.defaults import read_quantity, reading
from clusterling.packs.core.podspec.rules import Problems, items, named
from clusterling.packs.core.podspec.scheduling import node_selector_problems
from clusterling.packs.core.podspec.volumes import driver_name_problems
from clusterling.packs.split import SplitStrategy
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import RESETS_METADATA, Context, Strategy

GROUP: Final = "resource.k8s.io"

_LIST_MAX: Final = 32
_SUBREQUESTS_MAX: Final = 8
_DEVICES_MAX: Final = 128
_POOL_BYTES_MAX: Final = 253
_EXPRESSION_BYTES_MAX: Final = 10 * 1024
_MODES: Final = ("All", "ExactCount")
_OPERATORS: Final = ("Equal", "Exists")
_NAME_BYTES_MAX: Final = 32  # Of an attribute or a capacity, without its domain.
_TEXT_BYTES_MAX: Final = 64
_PROPERTIES_MAX: Final = 32  # Attributes and capacities of one device.
_VALUES: Final = ("int", "bool", "string", "version", "ints", "bools", "strings", "versions")
_NOTHING: Final = (
    "compilation failed: ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', "
    "'!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
# https://semver.org/#is-there-a-suggested-regular-expression-regex-to-check-a-semver-string
_SEMVER: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
)
_DEVICE: Final = ("driver", "pool", "device")  # What names one, of all.
_FIELDS: Final = (
    "name", "exactly", "firstAvailable",
    "deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity",
)  # fmt: skip
_EFFECTS: Final = ("NoExecute", "NoSchedule", "None")
_RULE_FIELDS: Final = ("pool", "driver", "device")


# ---------------------------------------------------------------------- claims


def _default_claim(spec: Object) -> None:
    for request in spec.setdefault("devices", {}).setdefault("requests", None) or ():
        for one in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if one is not None:
                one["allocationMode"] = one.get("allocationMode") or "ExactCount"
                if one["allocationMode"] == "ExactCount" and not one.get("count"):
                    one["count"] = 1


def claim_problems(spec: Object, path: str) -> Problems:
    """What is wrong with a ResourceClaimSpec."""
    devices, here = spec["devices"], f"{path}.devices"
    for field in ("requests", "constraints", "config"):
        if len(devices.get(field) or ()) > _LIST_MAX:
            yield too_many(f"{here}.{field}", len(devices[field]), _LIST_MAX)
    names: set[str] = set()
    known: set[str] = set()
    for where, request in items(devices, "requests", here):
        name = request.get("name") or ""
        yield from named(name, f"{where}.name", is_dns1123_label)
        if name in names:
            yield duplicate(where, _in_go_order(request))
        names.add(name)
        known |= {name, *(f"{name}/{one.get('name')}" for one in request.get("firstAvailable") or ())}
        yield from _request_problems(request, where)
    for field in ("constraints", "config"):
        for where, one in items(devices, field, here):
            yield from _reference_problems(one, where, known)
            if field == "constraints":
                yield from _constraint_problems(one, where)
            else:
                yield from _config_problems(one, where)


def _in_go_order(request: Object) -> GoStruct:
    """A request as Go writes it."""
    shown = GoStruct({field: request[field] for field in _FIELDS if field in request})
    if "exactly" in shown:
        shown["exactly"] = _in_go_order(shown["exactly"])
    return shown


def _request_problems(request: Object, path: str) -> Problems:
    exactly, first = request.get("exactly"), request.get("firstAvailable")
    if exactly is None and not first:
        yield required(path, "exactly one of `exactly` or `firstAvailable` is required")
    elif exactly is not None and first:
        why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"
        yield invalid_value(path, None, why)
    elif exactly is not None:
        yield from _device_problems(exactly, f"{path}.exactly")
    else:
        if len(first or ()) > _SUBREQUESTS_MAX:
            yield too_many(f"{path}.firstAvailable", len(first or ()), _SUBREQUESTS_MAX)
        names: set[str] = set()
        for where, one in items(request, "firstAvailable", path):
            name = one.get("name") or ""
            yield from named(name, f"{where}.name", is_dns1123_label)
            if name in names:
                yield duplicate(where, _in_go_order(one))
            names.add(name)
            yield from _device_problems(one, where)


def _device_problems(one: Object, path: str) -> Problems:
    device_class, mode, count = one.get("deviceClassName") or "", one["allocationMode"], one.get("count") or 0
    if device_class:
        yield from named(device_class, f"{path}.deviceClassName", is_dns1123_subdomain)
    else:
        yield required(f"{path}.deviceClassName")
    yield from _selector_problems(one, path)
    for where, toleration in items(one, "tolerations", path):
        if toleration.get("operator") not in (None, "", *_OPERATORS):
            yield not_supported(f"{where}.operator", toleration["operator"], _OPERATORS)
        if toleration.get("effect") not in (None, "", *_EFFECTS):
            yield not_supported(f"{where}.effect", toleration["effect"], _EFFECTS)
    if mode not in _MODES:
        yield not_supported(f"{path}.allocationMode", mode, _MODES)
    elif mode == "All" and count:
        why = "must not be specified when allocationMode is 'All'"
        yield invalid_value(f"{path}.count", count, why)
    elif mode == "ExactCount" and count <= 0:
        yield invalid_value(f"{path}.count", count, "must be greater than zero")


def _selector_problems(owner: Object, path: str) -> Problems:
    if len(owner.get("selectors") or ()) > _LIST_MAX:
        yield too_many(f"{path}.selectors", len(owner["selectors"]), _LIST_MAX)
    for where, selector in items(owner, "selectors", path):
        expression = (selector.get("cel") or {}).get("expression") or ""
        if selector.get("cel") is None:
            yield required(f"{where}.cel")
        elif not expression:
            yield invalid_value(f"{where}.cel.expression", expression, _NOTHING)
        elif len(expression.encode()) > _EXPRESSION_BYTES_MAX:
            yield too_long(f"{where}.cel.expression", _EXPRESSION_BYTES_MAX)


def _config_problems(one: Object, path: str) -> Problems:
    opaque, here = one.get("opaque"), f"{path}.opaque"
    if opaque is None:
        yield required(here)
        return
    parameters, driver = opaque.get("parameters"), opaque.get("driver") or ""
    if parameters is None:
        yield required(f"{here}.parameters")
    elif not isinstance(parameters, dict):
        yield invalid_value(f"{here}.parameters", "<value omitted>", "must be a valid JSON object")
    if driver:
        yield from named(driver, f"{here}.driver", is_dns1123_subdomain_in_any_case)
    else:
        yield required(f"{here}.driver")


def _reference_problems(one: Object, path: str, known: set[str]) -> Problems:
    for index, name in enumerate(one.get("requests") or ()):
        yield from _request_name_problems(name, f"{path}.requests[{index}]", known)


def _request_name_problems(name: str, path: str, known: set[str]) -> Problems:
    if name not in known:
        why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
        yield invalid_value(path, name, why)


def _constraint_problems(one: Object, path: str) -> Problems:
    attributes: list[str] = [
        one[field] for field in ("matchAttribute", "distinctAttribute") if one.get(field)
    ]
    if not attributes:
        why = (
            'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
        )
        yield required(path, why)
    elif len(attributes[0].rpartition("/")[2]) > _NAME_BYTES_MAX:
        yield too_long(f"{path}.matchAttribute", _NAME_BYTES_MAX)
    elif "/" not in attributes[0]:
        yield invalid_value(f"{path}.matchAttribute", attributes[0], "a fully qualified name must be a domain and a name separated by a slash")  # fmt: skip


class ClaimStrategy(SplitStrategy):
    """The spec of a claim never changes; status is the allocator's."""

    resets = RESETS_METADATA

    has_generation = False
    returns_deleted_object = True

    @override
    def complete(self, ctx: Context, new: Object) -> None:
        _default_claim(new.setdefault("spec", {}))

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(claim_problems(new["spec"], "spec"))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            status = new["status"]
            return [
                *_claim_status_problems(status, old.get("status") or {}),
                *_results_problems(status, _requests_of(new["spec"]["devices"])),
                *_device_status_problems(status),
            ]
        return [] if new["spec"] == old["spec"] else [immutable_field("spec", None)]


def _requests_of(devices: Object) -> set[str]:
    """The names by which a claim's requests and their alternatives are spoken of."""
    return {
        name
        for one in devices.get("requests") or ()
        for name in (
            one.get("name") or "",
            *(f"{one.get('name')}/{below.get('name')}" for below in one.get("firstAvailable") or ()),
        )
    }


def _results_problems(status: Object, requests: set[str]) -> Problems:
    allocated = (status.get("allocation") or {}).get("devices") or {}
    declared: list[FieldError] = []
    for where, result in items(allocated, "results", "status.allocation.devices"):
        yield from _request_name_problems(result.get("request") or "", f"{where}.request", requests)
        yield from named(result.get("device") or "", f"{where}.device", is_dns1123_label)
        pool = result.get("pool") or ""
        if not result.get("driver"):
            declared.append(required(f"{where}.driver"))
        if not pool:
            declared.append(required(f"{where}.pool"))
        else:
            declared += [
                one for part in pool.split("/") for one in named(part, f"{where}.pool", is_dns1123_subdomain)
            ]
    yield from declared


def _device_status_problems(status: Object) -> Problems:
    allocated = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    known = {tuple(one.get(field) for field in _DEVICE) for one in allocated}
    for where, device in items(status, "devices", "status"):
        if tuple(device.get(field) for field in _DEVICE) not in known:
            shown = {field.capitalize(): device.get(field) or "" for field in _DEVICE} | {"ShareID": ""}
            yield invalid_value(where, GoStruct(shown), "must be an allocated device in the claim")
        for index, text in enumerate((device.get("networkData") or {}).get("ips") or ()):
            if not _is_interface(text):
                why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"
                yield invalid_value(f"{where}.networkData.ips[{index}]", text, why)


def _is_interface(text: str) -> bool:
    try:
        ip_interface(text)
    except ValueError:
        return False
    return "/" in text


def _claim_status_problems(status: Object, before: Object) -> Problems:
    allocation, was = status.get("allocation"), before.get("allocation")
    reserved = status.get("reservedFor") or ()
    if allocation is None and reserved:
        yield forbidden_field("status.reservedFor", "may not be specified when `allocated` is not set")
    if len(reserved) > 256:
        yield too_many("status.reservedFor", len(reserved), 256)
    seen: set[str] = set()
    for where, consumer in items(status, "reservedFor", "status"):
        uid = consumer.get("uid") or ""
        for field in ("resource", "name", "uid"):
            if not consumer.get(field):
                yield required(f"{where}.{field}")
        if uid in seen:
            yield duplicate(f"{where}.uid", uid)
        seen.add(uid)
    if was is not None and allocation is not None and allocation != was:
        yield invalid_value("status.allocation", None, "field cannot be modified once set")


class TemplateStrategy(Strategy):
    has_generation = False
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        _default_claim(new.setdefault("spec", {}).setdefault("spec", {}))
        new["spec"].setdefault("metadata", {})

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        labels = new["spec"]["metadata"].get("labels") or {}
        found = validate_labels(labels, "spec.metadata.labels")
        return [*found, *claim_problems(new["spec"]["spec"], "spec.spec")]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        return [] if new["spec"] == old["spec"] else [immutable_field("spec", None)]


# ---------------------------------------------------------------------- classes, slices, taints


class DeviceClassStrategy(Strategy):
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("spec", {})

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        spec = new["spec"]
        found = list(_selector_problems(spec, "spec"))
        if len(spec.get("config") or ()) > _LIST_MAX:
            found.append(too_many("spec.config", len(spec["config"]), _LIST_MAX))
        for where, one in items(spec, "config", "spec"):
            found += _config_problems(one, where)
        name, where = spec.get("extendedResourceName"), "spec.extendedResourceName"
        if name is not None and "/" not in name:
            why = "a name must be a domain-prefixed path, such as 'example.com/my-prop'"
            found.append(invalid_value(where, name, why))
        if name is not None:
            found += named(name, where, is_qualified_name)
        return found


def _stamp(taint: Object, now: str) -> None:
    if taint.get("timeAdded") is None:
        taint["timeAdded"] = now


def _taint_problems(taint: Object, path: str) -> Problems:
    key, value, effect = (taint.get(field) or "" for field in ("key", "value", "effect"))
    yield from named(key, f"{path}.key", is_qualified_name)
    if value:
        yield from named(value, f"{path}.value", is_label_value)
    if not effect:
        yield required(f"{path}.effect")
    elif effect not in _EFFECTS:
        yield not_supported(f"{path}.effect", effect, _EFFECTS)


class SliceStrategy(Strategy):
    """What one driver offers on a node, on some, or on all."""

    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        spec = new.setdefault("spec", {})
        spec.setdefault("driver", "")
        spec.setdefault("pool", {}).setdefault("generation", 0)
        now = rfc3339(ctx.ports.clock.now())
        for device in spec.get("devices") or ():
            for taint in device.get("taints") or ():
                _stamp(taint, now)
        with reading(new):
            for device in spec.get("devices") or ():
                for amount in (device.get("capacity") or {}).values():
                    read_quantity(amount, "value")

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(_slice_problems(new["spec"]))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        found, spec, before = list(self.validate(ctx, new)), new["spec"], old["spec"]
        if spec["pool"].get("name") != before["pool"].get("name"):
            found.append(immutable_field("spec.pool.name", spec["pool"].get("name") or ""))
        found += [
            immutable_field(f"spec.{field}", spec.get(field))
            for field in ("driver", "nodeName")
            if spec.get(field) != before.get(field)
        ]
        return found

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        spec = obj.get("spec") or {}
        return {"spec.nodeName": spec.get("nodeName") or "", "spec.driver": spec.get("driver") or ""}


def _slice_problems(spec: Object) -> Problems:
    places = [
        field
        for field in ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
        if spec.get(field)
    ]
    choice = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
    if spec.get("nodeName"):
        yield from named(spec["nodeName"], "spec.nodeName", is_dns1123_subdomain)
    if spec.get("nodeSelector"):
        yield from node_selector_problems(spec["nodeSelector"], "spec.nodeSelector")
        if len(spec["nodeSelector"].get("nodeSelectorTerms") or ()) != 1:
            where, terms = (
                "spec.nodeSelector.nodeSelectorTerms",
                spec["nodeSelector"].get("nodeSelectorTerms"),
            )
            yield invalid_value(where, terms, "must have exactly one node selector term")
    if spec.get("allNodes") is False:
        yield invalid_value("spec.allNodes", False, "must be either unset or set to true")
    if not places:
        yield required("spec", choice)
    elif len(places) > 1:
        yield invalid_value("spec", f"{{{', '.join(places)}}}", f"{choice}, but multiple fields are set")
    yield from driver_name_problems(spec["driver"], "spec.driver")
    yield from _pool_problems(spec["pool"], "spec.pool")
    if spec.get("sharedCounters") and "devices" in spec:
        yield invalid_value("spec", "", "only one of `sharedCounters` or `devices` is allowed")
    for where, counters in items(spec, "sharedCounters", "spec"):
        yield from named(counters.get("name") or "", f"{where}.name", is_dns1123_label)
        if not counters.get("counters"):
            yield required(f"{where}.counters")
    if len(spec.get("devices") or ()) > _DEVICES_MAX:
        yield too_many("spec.devices", len(spec["devices"]), _DEVICES_MAX)
    names: set[str] = set()
    for path, device in items(spec, "devices", "spec"):
        name = device.get("name") or ""
        yield from named(name, f"{path}.name", is_dns1123_label)
        if name in names:
            yield duplicate(path, name)
        names.add(name)
        yield from _property_problems(device, path)
        for where, taint in items(device, "taints", path):
            yield from _taint_problems(taint, where)
        if device.get("bindingConditions") and not device.get("bindingFailureConditions"):
            why = "bindingFailureConditions are required to use bindingConditions"
            yield invalid_value(f"{path}.bindingFailureConditions", None, why)
        yield from _device_place_problems(device, path, spec)


def _device_place_problems(device: Object, path: str, spec: Object) -> Problems:
    """Where one device is, if the slice leaves that to each."""
    given = [field for field in ("nodeName", "nodeSelector", "allNodes") if device.get(field) is not None]
    if given and not spec.get("perDeviceNodeSelection"):
        why = (
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true "
            "in the ResourceSlice spec"
        )
        yield invalid_value(path, None, why)
    elif not given and spec.get("perDeviceNodeSelection"):
        why = (
            "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set "
            "to true in the ResourceSlice spec"
        )
        yield required(path, why)


def _property_problems(device: Object, path: str) -> Problems:
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    for field, found in (("attributes", attributes), ("capacity", capacity)):
        for name in sorted(found):
            yield from _property_name_problems(name, f"{path}.{field}")
    for name, value in sorted(attributes.items()):
        yield from _attribute_problems(value, f"{path}.attributes[{name}]")
    if (count := len(attributes) + len(capacity)) > _PROPERTIES_MAX:
        why = f"the total number of attributes and capacities must not exceed {_PROPERTIES_MAX}"
        yield invalid_value(path, count, why)


def _property_name_problems(name: str, path: str) -> Problems:
    domain, slash, own = name.rpartition("/")
    if slash:
        yield from named(domain, path, is_dns1123_subdomain)
    if len(own.encode()) > _NAME_BYTES_MAX:
        yield too_long(path, _NAME_BYTES_MAX)
    yield from named(own, path, is_c_identifier)


def _attribute_problems(value: Object, path: str) -> Problems:
    given = [field for field in _VALUES if value.get(field) is not None]
    known = ", ".join(f"`{one}`" for one in _VALUES)
    if not given:
        yield invalid_value(path, "", f"must specify one of: {known}")
    elif len(given) > 1:
        yield invalid_value(path, f"{{{', '.join(given)}}}", f"must specify exactly one of: {known}")
    for field in ("string", "version"):
        text = value.get(field)
        if text is None:
            continue
        if len(text.encode()) > _TEXT_BYTES_MAX:
            yield too_long(f"{path}.{field}", _TEXT_BYTES_MAX)
        if field == "version" and not _SEMVER.fullmatch(text):
            yield invalid_value(
                f"{path}.{field}", text, "must be a string compatible with semver.org spec 2.0.0"
            )


def _pool_problems(pool: Object, path: str) -> Problems:
    name, count, generation = (
        pool.get("name") or "",
        pool.get("resourceSliceCount") or 0,
        pool.get("generation") or 0,
    )
    if not name:
        yield required(f"{path}.name")
    elif len(name.encode()) > _POOL_BYTES_MAX:
        yield too_long(f"{path}.name", _POOL_BYTES_MAX)
    if name:
        for part in name.split("/"):
            yield from named(part, f"{path}.name", is_dns1123_subdomain)
    if count <= 0:
        yield invalid_value(f"{path}.resourceSliceCount", count, "must be greater than zero")
    if generation < 0:
        yield invalid_value(f"{path}.generation", generation, "must be greater than or equal to zero")


class TaintRuleStrategy(SplitStrategy):
    resets = RESETS_METADATA
    allow_unconditional_update = False

    @override
    def complete(self, ctx: Context, new: Object) -> None:
        taint = new.setdefault("spec", {}).setdefault("taint", {})
        _stamp(taint, rfc3339(ctx.ports.clock.now()))

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        super().prepare_for_update(ctx, new, old)
        taint, before = new["spec"]["taint"], old["spec"]["taint"]
        if taint.get("effect") != before.get("effect") and taint["timeAdded"] == before.get("timeAdded"):
            taint["timeAdded"] = rfc3339(ctx.ports.clock.now())

    @override
    def complete_status(self, new: Object) -> None:
        complete_conditions(new, new.setdefault("status", {}))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        return (
            list(condition_problems(new["status"]))
            if ctx.subresource == "status"
            else self.validate(ctx, new)
        )

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        spec = new["spec"]
        selector = spec.get("deviceSelector") or {}
        found: list[FieldError] = []
        for field, rule in zip(
            _RULE_FIELDS, (is_dns1123_subdomain, is_dns1123_subdomain, is_dns1123_label), strict=True
        ):
            if selector.get(field) is not None:
                value = selector[field]
                lowered = value.lower() if field == "driver" else value
                found += [invalid_value(f"spec.deviceSelector.{field}", value, why) for why in rule(lowered)]
        return [*found, *_taint_problems(spec["taint"], "spec.taint")]


# ---------------------------------------------------------------------- columns


def _state(obj: Object, _now: datetime) -> str:
    status, going = obj.get("status") or {}, "deletionTimestamp" in obj["metadata"]
    states = ["deleted"] if going else []
    if status.get("allocation") is None:
        return ",".join(states or ["pending"])
    states.append("allocated")
    if status.get("reservedFor"):
        states.append("reserved")
    return ",".join(states)


def _time_added(obj: Object, now: datetime) -> str:
    added = obj["spec"]["taint"].get("timeAdded")
    return "" if added is None else age(added, now)


PACK: Final = Pack(
    "resource",
    (
        builtin.resource(GROUP, "v1", "deviceclasses", strategy=DeviceClassStrategy()),
        builtin.resource(
            GROUP,
            "v1",
            "devicetaintrules",
            strategy=TaintRuleStrategy(),
            columns=(
                NAME_COLUMN,
                Column("Key", "string", builtin.at("spec", "taint", "key")),
                Column("Value", "string", builtin.at("spec", "taint", "value")),
                Column("Effect", "string", builtin.at("spec", "taint", "effect")),
                Column("TimeAdded", "string", _time_added),
                builtin.AGE,
            ),
        ),
        builtin.resource(
            GROUP,
            "v1",
            "resourceclaims",
            strategy=ClaimStrategy(),
            columns=(NAME_COLUMN, Column("State", "string", _state), builtin.AGE),
        ),
        builtin.resource(GROUP, "v1", "resourceclaimtemplates", strategy=TemplateStrategy()),
        builtin.resource(
            GROUP,
            "v1",
            "resourceslices",
            strategy=SliceStrategy(),
            columns=(
                NAME_COLUMN,
                Column("Node", "string", builtin.at("spec", "nodeName")),
                Column("Driver", "string", builtin.at("spec", "driver")),
                Column("Pool", "string", builtin.at("spec", "pool", "name")),
                builtin.AGE,
            ),
        ),
    ),
)
