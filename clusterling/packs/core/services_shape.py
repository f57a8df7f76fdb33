"""What a service is: its kind of type, what it needs allocated, and the defaults by which it is read.

A service is a union by `spec.type` whose fields decide for each other; every other module asks these questions here.
Upstream: kubernetes pkg/apis/core/v1/defaults.go, pkg/api/service/util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from clusterling.machinery.addresses import Address, parse_ip
from clusterling.machinery.meta import Object

CLUSTER_IP: Final = "ClusterIP"
NODE_PORT: Final = "NodePort"
LOAD_BALANCER: Final = "LoadBalancer"
EXTERNAL_NAME: Final = "ExternalName"
NO_ADDRESS: Final = "None"

AFFINITY_SECONDS: Final = 10_800
TRAFFIC_POLICIES: Final = ("Cluster", "Local")

# What upstream's encoder leaves out where it is empty.
_OMITTED: Final = (
    "ports", "selector", "clusterIP", "clusterIPs", "type", "externalIPs", "sessionAffinity", "loadBalancerIP",
    "loadBalancerSourceRanges", "publishNotReadyAddresses", "externalName", "externalTrafficPolicy",
    "healthCheckNodePort", "ipFamilies",
)  # fmt: skip
_OMITTED_OF_PORTS: Final = ("name", "protocol", "nodePort")


def read_spec(obj: Object) -> Object:
    """The spec of a service as it came, with upstream's defaults in it."""
    spec: Object = obj.setdefault("spec", {})
    _without_empty(spec, _OMITTED)
    kind = spec.setdefault("type", CLUSTER_IP)
    _read_affinity(spec)
    for port in ports_of(spec):
        _without_empty(port, _OMITTED_OF_PORTS)
        port.setdefault("protocol", "TCP")
        number = port.setdefault("port", 0)
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = number
    if is_reached_from_outside(spec):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind in (CLUSTER_IP, NODE_PORT, LOAD_BALANCER):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == LOAD_BALANCER:
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    return spec


def hide(spec: Object) -> None:
    """Drops what upstream stores of a service and never shows; whoever wrote it owns it all the same."""
    if spec["type"] == EXTERNAL_NAME and spec.get("internalTrafficPolicy") in TRAFFIC_POLICIES:
        del spec["internalTrafficPolicy"]


def _read_affinity(spec: Object) -> None:
    affinity = spec.setdefault("sessionAffinity", "None")
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP":
        given = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if given.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}


def read_status(obj: Object) -> None:
    """The status of a service as it came, with upstream's defaults in it."""
    status = obj.setdefault("status", {})
    balancer = status.setdefault("loadBalancer", {})
    _without_empty(status, ("conditions",))
    _without_empty(balancer, ("ingress",))
    for condition in status.get("conditions") or ():
        condition.setdefault("lastTransitionTime", None)  # Upstream's encoder has no empty time.
    for point in balancer.get("ingress") or ():
        _without_empty(point, ("ip", "hostname", "ports"))
        if obj["spec"]["type"] == LOAD_BALANCER and point.get("ip"):
            point.setdefault("ipMode", "VIP")


def _without_empty(obj: Object, fields: Sequence[str]) -> None:
    for field in fields:
        if field in obj and not obj[field]:
            del obj[field]


def ports_of(spec: Object) -> Sequence[Object]:
    found: Sequence[Object] = spec.get("ports") or ()
    return found


def cluster_ips(spec: Object) -> list[str]:
    found: list[str] = spec.get("clusterIPs") or []
    return found


def families(spec: Object) -> list[str]:
    found: list[str] = spec.get("ipFamilies") or []
    return found


def same(one: Object, other: Object, *fields: str) -> bool:
    """The two specs say the same there; nothing and empty are the same."""
    return all((one.get(field) or None) == (other.get(field) or None) for field in fields)


def has_type(spec: Object, *types: str) -> bool:
    return spec.get("type") in types


def is_external_name(spec: Object) -> bool:
    return has_type(spec, EXTERNAL_NAME)


def is_headless(spec: Object) -> bool:
    return cluster_ips(spec) == [NO_ADDRESS]


def is_reached_from_outside(spec: Object) -> bool:
    """Upstream: ExternallyAccessible."""
    return has_type(spec, NODE_PORT, LOAD_BALANCER) or (
        has_type(spec, CLUSTER_IP) and bool(spec.get("externalIPs"))
    )


def needs_health_check(spec: Object) -> bool:
    return has_type(spec, LOAD_BALANCER) and spec.get("externalTrafficPolicy") == "Local"


def gets_node_ports(spec: Object) -> bool:
    """Ports without a node port are given one."""
    return has_type(spec, NODE_PORT) or (
        has_type(spec, LOAD_BALANCER) and spec.get("allocateLoadBalancerNodePorts", True)
    )


def node_ports(spec: Object) -> list[int]:
    """The node ports that the ports name, one for each that does."""
    return [port["nodePort"] for port in ports_of(spec) if port.get("nodePort")]


def held_addresses(obj: Object | None) -> dict[str, Address]:
    """The addresses that a service keeps from others, by their canonical text."""
    spec: dict[str, Any] = {} if obj is None else obj["spec"]
    if is_external_name(spec):
        return {}
    parsed = (parse_ip(text) for text in cluster_ips(spec) if text != NO_ADDRESS)
    return {str(address): address for address in parsed if address is not None}


def held_ports(obj: Object | None) -> set[int]:
    """The node ports that a service keeps from others."""
    spec: dict[str, Any] = {} if obj is None else obj["spec"]
    if not has_type(spec, NODE_PORT, LOAD_BALANCER):
        return set()
    checked = spec.get("healthCheckNodePort", 0) if needs_health_check(spec) else 0
    return {*node_ports(spec), checked} - {0}
