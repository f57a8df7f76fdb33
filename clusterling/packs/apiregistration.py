"""apiregistration.k8s.io/v1: the versions of groups that are served, as objects; those of other servers are kept, and reached by nobody.

Upstream: kube-aggregator pkg/apis/apiregistration (validation, defaults), pkg/registry/apiservice.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, invalid_value, not_supported, required
from clusterling.machinery.meta import Object, meta, name_of, rfc3339
from clusterling.machinery.names import (
    is_dns1035_label,
    is_dns1123_subdomain,
    is_path_segment_name,
    is_port_number,
)
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.content import canonical_base64
from clusterling.packs.core.podspec.rules import Problems, named, needs
from clusterling.registry.pack import Pack
from clusterling.registry.receiving import Undecodable
from clusterling.registry.strategy import RESETS_METADATA, Context, Strategy

GROUP: Final = "apiregistration.k8s.io"

_GROUP_PRIORITY_MAX: Final = 20000
_VERSION_PRIORITY_MAX: Final = 1000
_STATUSES: Final = ("True", "False", "Unknown")
_PORT: Final = 443
_MANAGED: Final = "kube-aggregator.kubernetes.io/automanaged"
_LOCAL_ANSWERS: Final = {
    "type": "Available",
    "status": "True",
    "reason": "Local",
    "message": "Local APIServices are always available",
}
_NOT_REACHED: Final = {
    "type": "Available",
    "status": "False",
    "reason": "NotAggregated",
    "message": "APIs of other servers are not reached through this one",
}
# What upstream gives the versions of custom kinds (controlplane/controller/crdregistration): after its own.
_CUSTOM_PRIORITIES: Final = (1000, 100)


class ApiServiceStrategy(Strategy):
    resets = RESETS_METADATA
    has_generation = False
    allow_unconditional_update = False
    # The name follows from the spec.
    name_problems = staticmethod(is_path_segment_name)

    @override
    def read(self, ctx: Context, new: Object) -> None:
        if ctx.subresource != "status":
            _default(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new["status"] = _status(new["spec"], ctx.ports.clock.now())

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]
            new["metadata"] = {**meta(new), "labels": meta(old).get("labels")}
            if new["metadata"]["labels"] is None:
                del new["metadata"]["labels"]
        else:
            new["status"] = old.get("status") or {}
            if (new["spec"].get("service") is None) != (old["spec"].get("service") is None):
                new["status"] = _status(new["spec"], ctx.ports.clock.now())

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(_problems(new))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource != "status":
            return self.validate(ctx, new)
        return [
            not_supported(f"status.conditions[{index}].status", one.get("status") or "", _STATUSES)
            for index, one in enumerate((new.get("status") or {}).get("conditions") or ())
            if one.get("status") not in _STATUSES
        ]


def _default(new: Object) -> None:
    spec = new.setdefault("spec", {})
    for field in ("groupPriorityMinimum", "versionPriority"):
        spec.setdefault(field, 0)
    if spec.get("service") is not None and spec["service"].get("port") is None:
        spec["service"]["port"] = _PORT
    if spec.get("caBundle") is not None:
        try:
            spec["caBundle"] = canonical_base64(spec["caBundle"])
        except ValueError as error:
            raise Undecodable(new["kind"], new["apiVersion"], str(error)) from error


def _status(spec: Object, now: datetime) -> Object:
    """Told at once, where upstream's controllers tell it soon (pkg/controllers/status)."""
    condition = _LOCAL_ANSWERS if spec.get("service") is None else _NOT_REACHED
    return {"conditions": [{**condition, "lastTransitionTime": rfc3339(now)}]}


def _problems(new: Object) -> Problems:
    spec = new["spec"]
    group, version, service = spec.get("group") or "", spec.get("version") or "", spec.get("service")
    wanted = f"{version}.{group}"
    if name_of(new) != wanted:
        why = f'must be `spec.version+"."+spec.group`: "{wanted}"'
        yield invalid_value("metadata.name", name_of(new), why)
    if not group and version != "v1":
        yield required("spec.group", "only v1 may have an empty group and it better be legacy kube")
    if group:
        yield from named(group, "spec.group", is_dns1123_subdomain)
    yield from named(version, "spec.version", is_dns1035_label)
    for field, most in (
        ("groupPriorityMinimum", _GROUP_PRIORITY_MAX),
        ("versionPriority", _VERSION_PRIORITY_MAX),
    ):
        if not 0 < spec[field] <= most:
            yield invalid_value(f"spec.{field}", spec[field], f"must be positive and less than {most}")
    bundle, insecure = spec.get("caBundle"), spec.get("insecureSkipTLSVerify")
    if service is None:
        if bundle:
            shown = f"{len(base64.b64decode(bundle))} bytes"
            yield invalid_value("spec.caBundle", shown, "local APIServices may not have a caBundle")
        if insecure:
            why = "local APIServices may not have insecureSkipTLSVerify"
            yield invalid_value("spec.insecureSkipTLSVerify", True, why)
        return
    yield from needs(service, "spec.service", "namespace", "name")
    problems = is_port_number(service["port"])
    if problems:
        why = f"port is not valid: {', '.join(problems)}"
        yield invalid_value("spec.service.port", service["port"], why)
    if insecure and bundle:
        yield invalid_value("spec.insecureSkipTLSVerify", True, "may not be true if caBundle is present")


def _service(obj: Object, _now: datetime) -> str:
    service = obj["spec"].get("service")
    return "Local" if service is None else f"{service.get('namespace', '')}/{service.get('name', '')}"


def _available(obj: Object, _now: datetime) -> str:
    for one in (obj.get("status") or {}).get("conditions") or ():
        if one.get("type") == "Available":
            if one.get("status") == "True":
                return "True"
            return f"{one.get('status', '')} ({one.get('reason', '')})"
    return "Unknown"


# The groups that upstream serves itself, with the order they are told in: its aggregator's table of priorities.
_LOCAL: Final = (
    ("", "v1", 18000, 1), ("admissionregistration.k8s.io", "v1", 16700, 15), ("apiextensions.k8s.io", "v1", 16700, 15),
    ("apps", "v1", 17800, 15), ("authentication.k8s.io", "v1", 17700, 15), ("authorization.k8s.io", "v1", 17600, 15),
    ("autoscaling", "v1", 17500, 15), ("autoscaling", "v2", 17500, 30), ("batch", "v1", 17400, 15),
    ("certificates.k8s.io", "v1", 17300, 15), ("coordination.k8s.io", "v1", 16500, 15),
    ("discovery.k8s.io", "v1", 16200, 15), ("events.k8s.io", "v1", 17750, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16100, 21), ("networking.k8s.io", "v1", 17200, 15),
    ("node.k8s.io", "v1", 16300, 15), ("policy", "v1", 17100, 15), ("rbac.authorization.k8s.io", "v1", 17000, 15),
    ("resource.k8s.io", "v1", 16200, 21), ("scheduling.k8s.io", "v1", 16600, 15), ("storage.k8s.io", "v1", 16800, 15),
    ("storagemigration.k8s.io", "v1", 15800, 15),
)  # fmt: skip


def _service_of(group: str, version: str, priorities: tuple[int, int], managed: str) -> Object:
    """`managed`: what upstream's controller does to it, `onstart` or `true` for always."""
    of = {"group": group} if group else {}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "APIService",
        "metadata": {"name": f"{version}.{group}", "labels": {_MANAGED: managed}},
        "spec": {
            **of,
            "version": version,
            "groupPriorityMinimum": priorities[0],
            "versionPriority": priorities[1],
        },
    }


def of_custom_kinds(group: str, version: str) -> Object:
    """The APIService of a version of custom kinds, as it is to be created."""
    return _service_of(group, version, _CUSTOM_PRIORITIES, "true")


def is_of_custom_kinds(obj: Object) -> bool:
    """The server sees to it that this one is as `of_custom_kinds` says, or gone."""
    return (meta(obj).get("labels") or {}).get(_MANAGED) == "true"


def _local(rows: Iterable[tuple[str, str, int, int]]) -> Iterable[Object]:
    for group, version, *priorities in rows:
        made = _service_of(group, version, (priorities[0], priorities[1]), "onstart")
        yield {**made, "status": {"conditions": [_LOCAL_ANSWERS]}}


APISERVICES: Final = builtin.resource(
    GROUP,
    "v1",
    "apiservices",
    strategy=ApiServiceStrategy(),
    columns=(
        NAME_COLUMN,
        Column(
            "Service", "string", _service, "", "The reference to the service that hosts this API endpoint."
        ),
        Column("Available", "string", _available, "", "Whether this service is available."),
        builtin.AGE,
    ),
)

PACK: Final = Pack("apiregistration", (APISERVICES,), bootstrap=tuple(_local(_LOCAL)))
