"""Nodes: registered and reported on by whoever plays kubelet; nothing here is one. Upstream: kubernetes pkg/registry/core/node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.addresses import cidr_problems, parse_cidr
from clusterling.machinery.errors import (
    FieldError,
    FieldErrorType,
    GoStruct,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.names import is_label_value, is_qualified_name
from clusterling.machinery.quantity import Quantity
from clusterling.machinery.table import NAME_COLUMN, UNKNOWN, Column
from clusterling.packs import builtin
from clusterling.packs.core.pods_connecting import connecting, node_proxy
from clusterling.packs.core.podspec import reading
from clusterling.packs.core.podspec.defaults import read_resources
from clusterling.packs.core.podspec.omitting import write_as_go
from clusterling.packs.core.podspec.resources import quantity_problems
from clusterling.packs.core.times import read_time
from clusterling.registry.strategy import Context, Strategy

NOT_READY: Final = "node.kubernetes.io/not-ready"

_AVOIDED: Final = "scheduler.alpha.kubernetes.io/preferAvoidPods"
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_FEATURE: Final = re.compile(r"[A-Z][A-Za-z0-9]*(/[A-Za-z0-9]+)*")
_FEATURE_CHARACTERS_MAX: Final = 253
_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_ROLE: Final = "kubernetes.io/role"
_INFO: Final = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)

Problems = Iterator[FieldError]


class NodeStrategy(Strategy):
    has_generation = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        _complete(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new["spec"].pop("configSource", None)
        new["status"].pop("config", None)
        taints = new["spec"].get("taints") or []
        if not any(one.get("key") == NOT_READY and one.get("effect") == "NoSchedule" for one in taints):
            new["spec"]["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]
            if "config" not in (old.get("status") or {}):
                new["status"].pop("config", None)
            return
        new["status"] = old["status"]
        if "configSource" not in old["spec"]:
            new["spec"].pop("configSource", None)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [
            *_avoidance_problems(meta(new).get("annotations") or {}),
            *_taint_problems(new["spec"].get("taints") or ()),
            *_resource_problems(new["status"]),
            *_swap_problems(new["status"]),
            *_feature_problems(new["status"].get("declaredFeatures") or ()),
            *_range_problems(new["spec"].get("podCIDRs") or ()),
        ]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        # The object itself is judged as it was when it was made; its status is not.
        found = [] if ctx.subresource == "status" else list(self.validate(ctx, new))
        found += _change_problems(new, old)
        # Of those that both judge, one is told.
        return list({(one.type, one.field, one.detail): one for one in reversed(found)}.values())[::-1]

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if ctx.subresource or not new["spec"].get("externalID"):
            return ()
        return ("spec.externalID: this field is deprecated, and is unused by Kubernetes",)

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"spec.unschedulable": "true" if (obj.get("spec") or {}).get("unschedulable") else "false"}


def _complete(node: Object) -> None:
    """The node as Go writes it: both forms of its range, and zeros that are always told."""
    spec, status = node.setdefault("spec", {}), node.setdefault("status", {})
    single, ranges = spec.get("podCIDR"), spec.get("podCIDRs")
    if single and (not ranges or ranges[0] != single):
        spec["podCIDRs"] = [single]
    elif ranges and not single:
        spec["podCIDR"] = ranges[0]
    for field in ("unschedulable", "providerID", "externalID"):
        if not spec.get(field):
            spec.pop(field, None)
    with reading(node):
        read_resources(status, "capacity")
        read_resources(status, "allocatable")
    if status.get("capacity") and "allocatable" not in status:
        status["allocatable"] = dict(status["capacity"])
    info = status.setdefault("nodeInfo", {})
    for field in _INFO:
        info.setdefault(field, "")
    status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {}).setdefault("Port", 0)
    for condition in status.get("conditions") or ():
        for field in ("lastHeartbeatTime", "lastTransitionTime"):
            condition.setdefault(field, None)
            read_time(node, condition, field)
    for taint in spec.get("taints") or ():
        if "timeAdded" in taint:
            read_time(node, taint, "timeAdded")
    spec.pop("podPreemptionPolicy", None)  # Of a feature that is off.
    write_as_go(spec, "io.k8s.api.core.v1.NodeSpec")
    write_as_go(status, "io.k8s.api.core.v1.NodeStatus")


def _taint_problems(taints: Sequence[Object]) -> Problems:
    # Upstream says metadata, too.
    seen = set()
    for index, taint in enumerate(taints):
        path = f"metadata.taints[{index}]"
        key, value, effect = (taint.get(field) or "" for field in ("key", "value", "effect"))
        for problem in is_qualified_name(key):
            yield invalid_value(f"{path}.key", key, problem)
        wrong = is_label_value(value)
        if wrong:
            yield invalid_value(f"{path}.value", value, ";".join(wrong))
        if not effect:
            yield required(f"{path}.effect")
        elif effect not in _EFFECTS:
            yield not_supported(f"{path}.effect", effect, _EFFECTS)
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            why = "taints must be unique by key and effect pair"
            yield FieldError(FieldErrorType.DUPLICATE, path, GoStruct(shown), why)
        seen.add((key, effect))


def _avoidance_problems(notes: Object) -> Problems:
    """Of the pods that a node would rather not have: an annotation of long ago, still judged."""
    text, path = notes.get(_AVOIDED) or "", "metadata.annotations"
    if not text:
        return
    try:
        told = json.loads(text)
        entries = (told.get("preferAvoidPods") or []) if isinstance(told, dict) else []
        controllers = [(one.get("podSignature") or {}).get("podController") for one in entries]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        yield invalid_value(f"{path}.AvoidPods", _AVOIDED, str(error))
        return
    for index, controller in enumerate(controllers):
        here = f"{path}.{_AVOIDED}[{index}].PodSignature"
        if controller is None:
            yield required(here)
        elif not (isinstance(controller, dict) and controller.get("controller")):
            yield invalid_value(f"{here}.PodController.Controller", False, "must point to a controller")


def _swap_problems(status: Object) -> Problems:
    swap = status["nodeInfo"].get("swap") or {}
    if swap.get("capacity") is not None and swap["capacity"] <= 0:
        yield invalid_value("metadata.nodeSwapStatus.capacity", swap["capacity"], "must be greater than zero")


def _resource_problems(status: Object) -> Problems:
    for field in ("capacity", "allocatable"):
        for name, text in sorted((status.get(field) or {}).items()):
            yield from quantity_problems(name, Quantity.parse(text), f"status.{field}.{name}")


def _feature_problems(features: Sequence[str]) -> Problems:
    path = "status.declaredFeatures"
    for index, feature in enumerate(features):
        if len(feature) > _FEATURE_CHARACTERS_MAX:
            why = (
                f'invalid feature name "{feature}": must be no more than {_FEATURE_CHARACTERS_MAX} characters'
            )
            yield invalid_value(f"{path}[{index}]", feature, why)
        elif not _FEATURE.fullmatch(feature):
            why = (
                f'invalid feature name "{feature}": must start with an UpperCamelCase segment, with subsequent '
                "segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only "
                "alphanumeric characters and slashes"
            )
            yield invalid_value(f"{path}[{index}]", feature, why)
        if index and features[index - 1] == feature:
            yield duplicate(f"{path}[{index}]", feature)
        elif index and features[index - 1] > feature:
            yield invalid_value(f"{path}[{index}]", feature, "list must be sorted alphabetically")


def _range_problems(ranges: Sequence[str]) -> Problems:
    path = "spec.podCIDRs"
    for index, text in enumerate(ranges):
        for problem in cidr_problems(text):
            yield invalid_value(f"{path}[{index}]", text, problem)
    if len(ranges) < 2:
        return
    read = [parse_cidr(text) for text in ranges]
    for index, one in enumerate(read):
        if one is None:
            why = (
                "invalid PodCIDRs. failed to check with dual stack with error:"
                f"invalid CIDR[{index}]: <nil> (invalid CIDR address: {ranges[index]})"
            )
            yield FieldError(FieldErrorType.INTERNAL, path, detail=why)
            break
    families = {one.version for one in read if one is not None}
    if None in read or len(families) < 2 or len(ranges) > 2:
        yield invalid_value(path, list(ranges), "may specify no more than one CIDR for each IP family")


def _change_problems(new: Object, old: Object) -> Problems:
    yield from _avoidance_problems(meta(new).get("annotations") or {})
    yield from _resource_problems(new["status"])
    yield from _feature_problems(new["status"].get("declaredFeatures") or ())
    seen = set()
    for index, address in enumerate(new["status"].get("addresses") or ()):
        pair = (address.get("type") or "", address.get("address") or "")
        if pair in seen:
            shown = GoStruct(zip(("Type", "Address"), pair, strict=True))
            yield duplicate(f"status.addresses[{index}]", shown)
        seen.add(pair)
    after, before = new["spec"], old["spec"]
    ranges, was = after.get("podCIDRs") or [], before.get("podCIDRs") or []
    why = 'node updates may not change podCIDR except from "" to valid'
    if was and len(ranges) != len(was):
        yield forbidden_field("spec.podCIDRs", why)
    elif was:
        for one, other in zip(ranges, was, strict=True):
            if one != other:
                yield forbidden_field("spec.podCIDRs", why)
    given, known = after.get("providerID") or "", before.get("providerID") or ""
    if known and given != known:
        how = "modified" if given else "cleared"
        yield invalid_value("spec.providerID", None, f"field cannot be {how} once set")
    yield from _taint_problems(after.get("taints") or ())
    if (after.get("externalID") or "") != (before.get("externalID") or ""):
        yield forbidden_field("spec.externalID", "may not be updated")


# ---------------------------------------------------------------------- columns


def _status_cell(node: Object, _now: datetime) -> str:
    found = ""
    for condition in node["status"].get("conditions") or ():
        if condition.get("type") == "Ready":
            found = "Ready" if condition.get("status") == "True" else "NotReady"
    return (found or "Unknown") + (",SchedulingDisabled" if node["spec"].get("unschedulable") else "")


def _roles_cell(node: Object, _now: datetime) -> str:
    labels = meta(node).get("labels") or {}
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    roles.add(labels.get(_ROLE) or "")
    return ",".join(sorted(roles - {""})) or "<none>"


def _address(node: Object, kind: str) -> str:
    for one in node["status"].get("addresses") or ():
        if one.get("type") == kind:
            return str(one.get("address") or "")
    return "<none>"


def _info(node: Object, field: str) -> str:
    return str(node["status"]["nodeInfo"].get(field) or "")


def _kernel_cell(node: Object, _now: datetime) -> str:
    architecture = _info(node, "architecture")
    return (_info(node, "kernelVersion") or UNKNOWN) + (f" ({architecture})" if architecture else "")


NODES: Final = builtin.resource(
    "",
    "v1",
    "nodes",
    strategy=NodeStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Status", "string", _status_cell),
        Column("Roles", "string", _roles_cell),
        builtin.AGE,
        Column("Version", "string", lambda node, _: _info(node, "kubeletVersion")),
        Column("Internal-IP", "string", lambda node, _: _address(node, "InternalIP"), priority=1),
        Column("External-IP", "string", lambda node, _: _address(node, "ExternalIP"), priority=1),
        Column("OS-Image", "string", lambda node, _: _info(node, "osImage") or UNKNOWN, priority=1),
        Column("Kernel-Version", "string", _kernel_cell, priority=1),
        Column(
            "Container-Runtime",
            "string",
            lambda node, _: _info(node, "containerRuntimeVersion") or UNKNOWN,
            priority=1,
        ),
    ),
    subresources=(connecting("", "v1", "nodes", "proxy", node_proxy),),
)
