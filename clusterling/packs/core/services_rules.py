"""What is wrong with a service. Upstream: kubernetes pkg/apis/core/validation, validateService and its kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from clusterling.machinery.addresses import (
    cidr_problems,
    cidr_warnings,
    ip_problems,
    ip_warnings,
    problems_at,
    special_ip_problems,
)
from clusterling.machinery.errors import (
    FieldError,
    GoStruct,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.names import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_port_name,
    is_port_number,
    is_qualified_name,
)
from clusterling.machinery.objectmeta import validate_labels
from clusterling.packs.core.services_families import address_problems, change_problems
from clusterling.packs.core.services_shape import (
    CLUSTER_IP,
    EXTERNAL_NAME,
    LOAD_BALANCER,
    NO_ADDRESS,
    NODE_PORT,
    TRAFFIC_POLICIES,
    cluster_ips,
    families,
    has_type,
    is_external_name,
    is_headless,
    is_reached_from_outside,
    needs_health_check,
    ports_of,
    same,
)
from clusterling.packs.networking.ingresses import hostname_problems

_TYPES: Final = (CLUSTER_IP, EXTERNAL_NAME, LOAD_BALANCER, NODE_PORT)
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_AFFINITIES: Final = ("ClientIP", "None")
_AFFINITY_SECONDS_MAX: Final = 86_400
_DISTRIBUTIONS: Final = ("PreferClose", "PreferSameZone", "PreferSameNode")
_IP_MODES: Final = ("Proxy", "VIP")
_HINTS: Final = "service.kubernetes.io/topology-aware-hints"
_MODE: Final = "service.kubernetes.io/topology-mode"
_SOURCE_RANGES: Final = "service.beta.kubernetes.io/load-balancer-source-ranges"
_OF_BALANCERS: Final = "may only be used when `type` is 'LoadBalancer'"


def service_problems(new: Object, old: Object | None) -> list[FieldError]:
    """What is wrong with a service being created, or (`old`) changed, beyond its metadata."""
    spec, was = new["spec"], {} if old is None else old["spec"]
    found = [] if old is None else _change_problems(spec, was)
    found += _topology_problems(new)
    found += _type_problems(spec)
    found += _port_problems(spec)
    found += validate_labels(spec.get("selector") or {}, "spec.selector")
    found += _affinity_problems(spec)
    found += address_problems(spec, was or None)
    found += _external_ip_problems(spec, was)
    if spec["type"] not in _TYPES:
        found.append(not_supported("spec.type", spec["type"], _TYPES))
    found += _number_problems(spec)
    found += _source_range_problems(new, old)
    if spec.get("allocateLoadBalancerNodePorts") is not None and not has_type(spec, LOAD_BALANCER):
        found.append(forbidden_field("spec.allocateLoadBalancerNodePorts", _OF_BALANCERS))
    # Of a change it was told before.
    found += _class_problems(spec) if old is None else []
    return found + _traffic_problems(spec)


def _change_problems(spec: Object, was: Object) -> list[FieldError]:
    found = change_problems(spec, was)
    if has_type(was, LOAD_BALANCER) and has_type(spec, LOAD_BALANCER):
        name = spec.get("loadBalancerClass")
        if name != was.get("loadBalancerClass"):
            found.append(invalid_value("spec.loadBalancerClass", name, "may not change once set"))
    found += _class_problems(spec)
    if needs_health_check(was) and needs_health_check(spec) and not same(spec, was, "healthCheckNodePort"):
        found.append(forbidden_field("spec.healthCheckNodePort", "field is immutable"))
    return found


def _topology_problems(new: Object) -> list[FieldError]:
    annotations = meta(new).get("annotations") or {}
    hints, mode = annotations.get(_HINTS), annotations.get(_MODE)
    if hints is None or mode is None or hints == mode:
        return []
    why = f"must match annotations[{_HINTS}] when both are specified"
    return [invalid_value(f"metadata.annotations[{_MODE}]", mode, why)]


def _type_problems(spec: Object) -> list[FieldError]:
    kind, headless = spec["type"], is_headless(spec)
    found = []
    if not ports_of(spec) and not headless and kind != EXTERNAL_NAME:
        found.append(required("spec.ports"))
    if kind in (LOAD_BALANCER, NODE_PORT) and headless:
        why = f"may not be set to 'None' for {kind} services"
        found.append(invalid_value("spec.clusterIPs[0]", NO_ADDRESS, why))
    if kind != EXTERNAL_NAME:
        return found
    given = (
        ("clusterIPs", cluster_ips(spec)),
        ("ipFamilies", families(spec)),
        ("ipFamilyPolicy", spec.get("ipFamilyPolicy") is not None),
    )
    why = "may not be set for ExternalName services"
    found += [forbidden_field(f"spec.{field}", why) for field, is_given in given if is_given]
    name = spec.get("externalName", "").removesuffix(".")
    path = "spec.externalName"
    return found + (problems_at(path, name, is_dns1123_subdomain(name)) if name else [required(path)])


def _port_problems(spec: Object) -> list[FieldError]:
    ports, names, found = ports_of(spec), set[str](), []
    for index, port in enumerate(ports):
        path, name = f"spec.ports[{index}]", port.get("name", "")
        if name:
            found += problems_at(f"{path}.name", name, is_dns1123_label(name))
            if name in names:
                found.append(duplicate(f"{path}.name", name))
            names.add(name)
        elif len(ports) > 1:
            found.append(required(f"{path}.name"))
        found += _one_port_problems(port, path)
    return found


def _one_port_problems(port: Object, path: str) -> list[FieldError]:
    number, protocol, target = port["port"], port["protocol"], port["targetPort"]
    found = [invalid_value(f"{path}.port", number, one) for one in is_port_number(number)]
    if protocol not in _PROTOCOLS:
        found.append(not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    wrong = is_port_name(target) if isinstance(target, str) else is_port_number(target)
    found += [invalid_value(f"{path}.targetPort", target, one) for one in wrong]
    spoken = port.get("appProtocol")
    if spoken is not None:
        found += problems_at(f"{path}.appProtocol", spoken, is_qualified_name(spoken))
    return found


def _number_problems(spec: Object) -> list[FieldError]:
    """Node ports where there may be none, and pairs of protocol and number given twice."""
    found, ports = [], ports_of(spec)
    if has_type(spec, CLUSTER_IP):
        why = "may not be used when `type` is 'ClusterIP'"
        found += [
            forbidden_field(f"spec.ports[{index}].nodePort", why)
            for index, port in enumerate(ports)
            if port.get("nodePort")
        ]
    seen: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        pair = (port["protocol"], port.get("nodePort", 0))
        if pair[1] and pair in seen:
            found.append(duplicate(f"spec.ports[{index}].nodePort", pair[1]))
        seen.add(pair)
    seen = set()
    for index, port in enumerate(ports):
        pair = (port["protocol"], port["port"])
        if pair in seen:
            # Upstream shows its own form of the two, in which the rest of a port is empty.
            shown = GoStruct(
                Name="", Protocol=pair[0], AppProtocol=None, Port=pair[1], TargetPort=0, NodePort=0
            )
            found.append(duplicate(f"spec.ports[{index}]", shown))
        seen.add(pair)
    return found


def _affinity_problems(spec: Object) -> list[FieldError]:
    affinity = spec["sessionAffinity"]
    if affinity not in _AFFINITIES:
        return [not_supported("spec.sessionAffinity", affinity, _AFFINITIES)]
    if affinity == "None":
        return []
    seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]
    if 0 < seconds <= _AFFINITY_SECONDS_MAX:
        return []
    why = f"must be greater than 0 and less than {_AFFINITY_SECONDS_MAX}"
    return [invalid_value("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, why)]


def _external_ip_problems(spec: Object, was: Object) -> list[FieldError]:
    known, found = was.get("externalIPs") or (), []
    for index, text in enumerate(spec.get("externalIPs") or ()):
        path = f"spec.externalIPs[{index}]"
        wrong = [] if text in known else problems_at(path, text, ip_problems(text))
        found += wrong or special_ip_problems(text, path)
    return found


def _source_range_problems(new: Object, old: Object | None) -> list[FieldError]:
    spec = new["spec"]
    ranges, annotation = spec.get("loadBalancerSourceRanges") or (), _annotated_ranges(new)
    balancer = has_type(spec, LOAD_BALANCER)
    if ranges:
        path = "spec.LoadBalancerSourceRanges"
        known = {text.strip() for text in (old or {"spec": {}})["spec"].get("loadBalancerSourceRanges") or ()}
        found = [] if balancer else [forbidden_field(path, _OF_BALANCERS)]
        for index, text in enumerate(one.strip() for one in ranges):
            if text not in known:
                found += problems_at(f"{path}[{index}]", text, cidr_problems(text))
        return found
    if annotation is None:
        return []
    path = f"metadata.annotations[{_SOURCE_RANGES}]"
    found = [] if balancer else [forbidden_field(path, _OF_BALANCERS)]
    if (old is None or _annotated_ranges(old) != annotation) and annotation.strip():
        for text in (one.strip() for one in annotation.strip().split(",")):
            found += problems_at(path, text, cidr_problems(text))
    return found


def _annotated_ranges(obj: Object) -> str | None:
    found: str | None = (meta(obj).get("annotations") or {}).get(_SOURCE_RANGES)
    return found


def _class_problems(spec: Object) -> list[FieldError]:
    name, path = spec.get("loadBalancerClass"), "spec.loadBalancerClass"
    if name is None:
        return []
    if has_type(spec, LOAD_BALANCER):
        return problems_at(path, name, is_qualified_name(name))
    return [forbidden_field(path, _OF_BALANCERS)]


def _traffic_problems(spec: Object) -> list[FieldError]:
    external, path, found = spec.get("externalTrafficPolicy", ""), "spec.externalTrafficPolicy", []
    if not is_reached_from_outside(spec):
        if external:
            why = "may only be set for externally-accessible services"
            found.append(invalid_value(path, external, why))
    elif external not in TRAFFIC_POLICIES:
        found.append(not_supported(path, external, TRAFFIC_POLICIES))
    found += _health_problems(spec)
    internal = spec.get("internalTrafficPolicy")
    if internal is None and has_type(spec, NODE_PORT, LOAD_BALANCER, CLUSTER_IP):
        found.append(required("spec.internalTrafficPolicy"))
    if internal is not None and internal not in TRAFFIC_POLICIES:
        found.append(not_supported("spec.internalTrafficPolicy", internal, TRAFFIC_POLICIES))
    spread = spec.get("trafficDistribution")
    if spread is not None and spread not in _DISTRIBUTIONS:
        found.append(not_supported("spec.trafficDistribution", spread, _DISTRIBUTIONS))
    return found


def _health_problems(spec: Object) -> list[FieldError]:
    port, path = spec.get("healthCheckNodePort", 0), "spec.healthCheckNodePort"
    if needs_health_check(spec):
        return [invalid_value(path, port, one) for one in is_port_number(port)] if port else [required(path)]
    why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
    return [invalid_value(path, port, why)] if port else []


def status_problems(new: Object, old: Object) -> list[FieldError]:
    """What is wrong with a service's status being changed."""
    points, before = _points(new), _points(old)
    if points and not has_type(new["spec"], LOAD_BALANCER):
        why = "may only be used when `spec.type` is 'LoadBalancer'"
        return [forbidden_field("status.loadBalancer.ingress", why)]
    known = {point["ip"] for point in before if point.get("ip")}
    found = []
    for index, point in enumerate(points):
        path, ip, mode = (
            f"status.loadBalancer.ingress[{index}]",
            point.get("ip", ""),
            point.get("ipMode"),
        )
        if ip and ip not in known:
            found += problems_at(f"{path}.ip", ip, ip_problems(ip))
        if mode is not None and not ip:
            why = "may not be specified when `ip` is not set"
            found.append(forbidden_field(f"{path}.ipMode", why))
        elif mode is not None and mode not in _IP_MODES:
            found.append(not_supported(f"{path}.ipMode", mode, _IP_MODES))
        found += hostname_problems(point, path)
    return found


def _points(obj: Object) -> Sequence[Object]:
    found: Sequence[Object] = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return found


def service_warnings(new: Object) -> list[str]:
    """What is told of a service that is valid. Upstream: kubernetes pkg/api/service/warnings.go."""
    spec, found = new["spec"], []
    headless = has_type(spec, CLUSTER_IP) and spec.get("clusterIP") == NO_ADDRESS
    outer, balancer = spec.get("externalIPs") or (), spec.get("loadBalancerIP", "")
    if _HINTS in (meta(new).get("annotations") or {}):
        found.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    if spec.get("clusterIP") not in (None, "", NO_ADDRESS):
        for index, text in enumerate(cluster_ips(spec)):
            found += ip_warnings(f"spec.clusterIPs[{index}]", text)
    if headless:
        ignored = (
            ("loadBalancerIP", balancer),
            ("externalIPs", outer),
            ("SessionAffinity", spec["sessionAffinity"] != "None"),
        )
        found += [f"spec.{name} is ignored for headless services" for name, given in ignored if given]
    for index, text in enumerate(outer):
        found += ip_warnings(f"spec.externalIPs[{index}]", text)
    if outer and not headless and not is_external_name(spec):
        found.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if balancer:
        found += ip_warnings("spec.loadBalancerIP", balancer)
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        found += cidr_warnings(f"spec.loadBalancerSourceRanges[{index}]", text)
    if is_external_name(spec) and outer:
        found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if not is_external_name(spec) and spec.get("externalName"):
        found.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        found.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return found
