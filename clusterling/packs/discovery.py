"""discovery.k8s.io/v1: EndpointSlices, the addresses behind a service in pieces. Upstream: kubernetes pkg/registry/discovery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.addresses import (
    canonical_ip_problems,
    family_of,
    ip_problems,
    ip_warnings,
    special_ip_problems,
)
from clusterling.machinery.errors import (
    FieldError,
    duplicate,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.names import is_dns1123_label, is_dns1123_subdomain, is_label_value
from clusterling.machinery.objectmeta import validate_labels
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.endpoints import SHOWN_MAX, protocol_problems
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import Context, Strategy

ENDPOINTS_MAX: Final = 1000
ADDRESSES_MAX: Final = 100
PORTS_MAX: Final = 20_000
HINTS_MAX: Final = 8
TOPOLOGY_LABELS_MAX: Final = 16

_TYPES: Final = ("FQDN", "IPv4", "IPv6")
_MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
_CONTROLLERS: Final = (
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
)

Problems = Iterator[FieldError]


class EndpointSliceStrategy(Strategy):
    @override
    def read(self, ctx: Context, new: Object) -> None:
        for field in ("endpoints", "ports"):
            # Both are told where they are empty.
            new.setdefault(field, None)
        for port in new["ports"] or ():
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")
        for endpoint in new["endpoints"] or ():
            endpoint.setdefault("conditions", {})
            endpoint.setdefault("addresses", None)
            endpoint.pop("deprecatedTopology", None)

    @override
    def raises_generation(self, ctx: Context, new: Object, old: Object) -> bool | None:
        labels = [meta(one).get("labels") or {} for one in (new, old)]
        return True if labels[0] != labels[1] else None

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [*_shape_problems(new), *_endpoints_problems(new)]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        found = list(_shape_problems(new))
        if new.get("endpoints") != old.get("endpoints"):
            found += _endpoints_problems(new)
        if new.get("addressType") != old.get("addressType"):
            found.append(invalid_value("addressType", None, "field is immutable"))
        return found

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        found = []
        if old is None and new.get("addressType") == "FQDN":
            found.append("spec.addressType: FQDN endpoints are deprecated")
        if (meta(new).get("labels") or {}).get(_MANAGED_BY) not in _CONTROLLERS:
            for index, endpoint in enumerate(new.get("endpoints") or ()):
                for at, address in enumerate(endpoint.get("addresses") or ()):
                    found += ip_warnings(f"endpoints[{index}].addresses[{at}]", address)
        return found


def _shape_problems(new: Object) -> Problems:
    kind = new.get("addressType") or ""
    if not kind:
        yield required("addressType")
    elif kind not in _TYPES:
        yield not_supported("addressType", kind, _TYPES)
    ports = new.get("ports") or ()
    if len(ports) > PORTS_MAX:
        yield too_many("ports", len(ports), PORTS_MAX)
        return
    seen = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port["name"]
        for problem in is_dns1123_label(name) if name else ():
            yield invalid_value(f"{path}.name", name, problem)
        if name in seen:
            yield duplicate(f"{path}.name", name)
        seen.add(name)
        yield from protocol_problems(port, path)


def _endpoints_problems(new: Object) -> Problems:
    endpoints = new.get("endpoints") or ()
    if len(endpoints) > ENDPOINTS_MAX:
        yield too_many("endpoints", len(endpoints), ENDPOINTS_MAX)
        return
    for index, endpoint in enumerate(endpoints):
        path = f"endpoints[{index}]"
        yield from _addresses_problems(endpoint, new.get("addressType") or "", f"{path}.addresses")
        node, host = endpoint.get("nodeName"), endpoint.get("hostname")
        for problem in is_dns1123_subdomain(node) if node is not None else ():
            yield invalid_value(f"{path}.nodeName", node, problem)
        labels = endpoint.get("deprecatedTopology") or {}
        if len(labels) > TOPOLOGY_LABELS_MAX:
            yield too_many(f"{path}.deprecatedTopology", len(labels), TOPOLOGY_LABELS_MAX)
        yield from validate_labels(labels, f"{path}.deprecatedTopology")
        for problem in is_dns1123_label(host) if host is not None else ():
            yield invalid_value(f"{path}.hostname", host, problem)
        hints = endpoint.get("hints") or {}
        yield from _hint_problems(hints.get("forZones") or (), f"{path}.hints.forZones", is_label_value)
        yield from _hint_problems(hints.get("forNodes") or (), f"{path}.hints.forNodes", is_dns1123_subdomain)


def _addresses_problems(endpoint: Object, kind: str, path: str) -> Problems:
    addresses = endpoint.get("addresses") or ()
    if not addresses:
        yield required(path)
    elif len(addresses) > ADDRESSES_MAX:
        yield too_many(path, len(addresses), ADDRESSES_MAX)
        return
    for index, address in enumerate(addresses):
        here = f"{path}[{index}]"
        if kind == "FQDN":
            yield from _domain_problems(address, here)
            continue
        if kind not in ("IPv4", "IPv6"):
            continue
        wrong = ip_problems(address) if kind == "IPv4" else canonical_ip_problems(address)
        for problem in wrong:
            yield invalid_value(here, address, problem)
        if not wrong:
            if family_of(address) != kind:
                yield invalid_value(path, address, f"must be an {kind} address")
            yield from special_ip_problems(address, here)


def _domain_problems(name: str, path: str) -> Problems:
    """Upstream: apimachinery validation.IsFullyQualifiedDomainName."""
    if not name:
        yield required(path)
        return
    bare = name.removesuffix(".")
    wrong = is_dns1123_subdomain(bare)
    for problem in wrong:
        yield invalid_value(path, bare, problem)
    if wrong:
        return
    labels = bare.split(".")
    if len(labels) < 2:
        yield invalid_value(path, bare, "should be a domain with at least two segments separated by dots")
    for label in labels:
        for problem in is_dns1123_label(label):
            yield invalid_value(path, label, problem)


def _hint_problems(hints: Sequence[Object], path: str, rule: Callable[[str], Sequence[str]]) -> Problems:
    if len(hints) > HINTS_MAX:
        yield too_many(path, len(hints), HINTS_MAX)
        return
    seen = set()
    for index, hint in enumerate(hints):
        here, name = f"{path}[{index}].name", hint.get("name") or ""
        if name in seen:
            yield duplicate(here, name)
        seen.add(name)
        for problem in rule(name):
            yield invalid_value(here, name, problem)


def _some(values: Sequence[str], count: int) -> str:
    text = ",".join(values[:SHOWN_MAX])
    if count > SHOWN_MAX:
        return f"{text} + {count - SHOWN_MAX} more..."
    return text or "<unset>"


def _ports_cell(obj: Object, _now: datetime) -> str:
    ports = obj.get("ports") or ()
    shown = [
        str(one["port"]) if one.get("port") is not None else str(one.get("name", "*"))
        for one in ports[:SHOWN_MAX]
    ]
    return _some(shown, len(ports))


def _endpoints_cell(obj: Object, _now: datetime) -> str:
    addresses = [text for one in obj.get("endpoints") or () for text in one.get("addresses") or ()]
    return _some(addresses, len(addresses))


ENDPOINTSLICES: Final = builtin.resource(
    "discovery.k8s.io",
    "v1",
    "endpointslices",
    strategy=EndpointSliceStrategy(),
    columns=(
        NAME_COLUMN,
        Column("AddressType", "string", lambda obj, _: obj.get("addressType", "")),
        Column("Ports", "string", _ports_cell),
        Column("Endpoints", "string", _endpoints_cell),
        builtin.AGE,
    ),
)

PACK: Final = Pack("discovery", (ENDPOINTSLICES,))
