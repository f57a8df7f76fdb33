"""Endpoints: the addresses behind a service in one object, the old way. Upstream: kubernetes pkg/registry/core/endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.addresses import ip_problems, ip_warnings, special_ip_problems
from clusterling.machinery.errors import FieldError, invalid_value, not_supported, required
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.names import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_port_number,
    is_qualified_name,
)
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.registry.strategy import Context, Strategy

PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
SHOWN_MAX: Final = 3

_MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
_CONTROLLER: Final = "endpoint-controller"
_ADDRESS_LISTS: Final = ("addresses", "notReadyAddresses")

Problems = Iterator[FieldError]


class EndpointsStrategy(Strategy):
    has_generation = False
    allow_create_on_update = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        if not new.get("subsets"):
            new.pop("subsets", None)
        for subset in new.get("subsets") or ():
            for port in subset.get("ports") or ():
                port.setdefault("port", 0)
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [
            problem
            for index, subset in enumerate(new.get("subsets") or ())
            for problem in _subset_problems(subset, f"subsets[{index}]")
        ]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        return () if new.get("subsets") == old.get("subsets") else self.validate(ctx, new)

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if (meta(new).get("labels") or {}).get(_MANAGED_BY) == _CONTROLLER:
            return ()
        return [
            text
            for index, subset in enumerate(new.get("subsets") or ())
            for field in _ADDRESS_LISTS
            for at, one in enumerate(subset.get(field) or ())
            for text in ip_warnings(f"subsets[{index}].{field}[{at}].ip", one.get("ip") or "")
        ]


def _subset_problems(subset: Object, path: str) -> Problems:
    if not any(subset.get(field) for field in _ADDRESS_LISTS):
        yield required(path, "must specify `addresses` or `notReadyAddresses`")
    for field in _ADDRESS_LISTS:
        for index, address in enumerate(subset.get(field) or ()):
            yield from _address_problems(address, f"{path}.{field}[{index}]")
    ports = subset.get("ports") or ()
    for index, port in enumerate(ports):
        yield from _port_problems(port, f"{path}.ports[{index}]", named=len(ports) > 1)


def _address_problems(address: Object, path: str) -> Problems:
    text, host, node = address.get("ip") or "", address.get("hostname"), address.get("nodeName")
    for problem in ip_problems(text):
        yield invalid_value(f"{path}.ip", text, problem)
    if host:
        for problem in is_dns1123_label(host):
            yield invalid_value(f"{path}.hostname", host, problem)
    if node is not None:
        for problem in is_dns1123_subdomain(node):
            yield invalid_value(f"{path}.nodeName", node, problem)
    yield from special_ip_problems(text, f"{path}.ip")


def _port_problems(port: Object, path: str, *, named: bool) -> Problems:
    name, number = port.get("name") or "", port.get("port") or 0
    if named and not name:
        yield required(f"{path}.name")
    elif name:
        for problem in is_dns1123_label(name):
            yield invalid_value(f"{path}.name", name, problem)
    for problem in is_port_number(number):
        yield invalid_value(f"{path}.port", number, problem)
    yield from protocol_problems(port, path)


def protocol_problems(port: Object, path: str) -> Problems:
    """Of a port of Endpoints or of an EndpointSlice: which protocols it speaks."""
    if port["protocol"] not in PROTOCOLS:
        yield not_supported(f"{path}.protocol", port["protocol"], PROTOCOLS)
    spoken = port.get("appProtocol")
    if spoken is not None:
        for problem in is_qualified_name(spoken):
            yield invalid_value(f"{path}.appProtocol", spoken, problem)


def _endpoints_cell(obj: Object, _now: datetime) -> str:
    shown: list[str] = []
    count = 0
    for subset in obj.get("subsets") or ():
        addresses = subset.get("addresses") or ()
        ports = [one.get("port", 0) for one in subset.get("ports") or ()] or [None]
        count += len(addresses) * len(ports)
        for port in ports:
            more = addresses[: SHOWN_MAX - len(shown)]
            shown.extend(_joined(one.get("ip") or "", port) for one in more)
    if not obj.get("subsets"):
        return "<none>"
    text = ",".join(shown)
    return f"{text} + {count - SHOWN_MAX} more..." if count > SHOWN_MAX else text


def _joined(ip: str, port: int | None) -> str:
    if port is None:
        return ip
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


_PLAIN: Final = builtin.resource(
    "",
    "v1",
    "endpoints",
    strategy=EndpointsStrategy(),
    columns=(NAME_COLUMN, Column("Endpoints", "string", _endpoints_cell), builtin.AGE),
)
ENDPOINTS: Final = replace(
    _PLAIN,
    versions=tuple(
        replace(
            one,
            deprecation_warning="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        )
        for one in _PLAIN.versions
    ),
)
