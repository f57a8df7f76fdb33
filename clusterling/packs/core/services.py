"""Services: a name and an address for what selectors find, and ports under which nodes would serve it.

Upstream: kubernetes pkg/registry/core/service. What a service is is in services_shape.py, what its addresses mean in
services_families.py, how they are had in services_claims.py, what is wrong with one in services_rules.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import orjson
from typing_extensions import override

from clusterling.machinery import errors
from clusterling.machinery.errors import ApiError, FieldError
from clusterling.machinery.meta import Object, name_of, namespace_of
from clusterling.machinery.names import is_dns1123_label
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core import services_claims as claims
from clusterling.packs.core.pods_connecting import connecting
from clusterling.packs.core.services_families import settle
from clusterling.packs.core.services_rules import service_problems, service_warnings, status_problems
from clusterling.packs.core.services_shape import (
    EXTERNAL_NAME,
    LOAD_BALANCER,
    NODE_PORT,
    cluster_ips,
    has_type,
    hide,
    is_external_name,
    is_reached_from_outside,
    needs_health_check,
    node_ports,
    ports_of,
    read_spec,
    read_status,
    same,
)
from clusterling.packs.networking.ingresses import balancer_addresses, status_ip_warnings
from clusterling.packs.networking.servicecidrs import SERVER_ADDRESS
from clusterling.registry.resource import SubresourceCall
from clusterling.registry.strategy import Companions, Context, Strategy

_SCHEMES: Final = ("", "http", "https")


class ServiceStrategy(Strategy):
    has_generation = False
    allow_create_on_update = True
    returns_deleted_object = True
    name_problems = staticmethod(is_dns1123_label)

    @override
    def read(self, ctx: Context, new: Object) -> None:
        read_spec(new)
        if ctx.subresource == "status":
            read_status(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new["status"] = {"loadBalancer": {}}
        hide(new["spec"])

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]
            read_status(new)  # What its own type makes of it, which the client need not have sent.
        else:
            new["status"] = old["status"]
            hide(new["spec"])

    @override
    async def admit(self, ctx: Context, new: Object, old: Object | None) -> None:
        if ctx.subresource:
            return
        settle(new, old)
        if old is None or (is_external_name(old["spec"]) and not is_external_name(new["spec"])):
            await claims.claim_addresses(ctx, new)
        await claims.claim_ports(ctx, new, old)
        if old is not None:
            _drop_what_no_longer_applies(new, old)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return service_problems(new, None)

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        return status_problems(new, old) if ctx.subresource else service_problems(new, old)

    @override
    def restored(self, ctx: Context, old: Object) -> Object | None:
        if namespace_of(old) == "default" and name_of(old) == "kubernetes":
            found: Object = orjson.loads(_SERVER)
            return found
        return None

    @override
    async def companions(self, ctx: Context, new: Object | None, old: Object | None) -> Companions:
        return await claims.changes(ctx, new, old)

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        return status_ip_warnings(new) if ctx.subresource else service_warnings(new)

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        spec = obj.get("spec") or {}
        return {"spec.clusterIP": spec.get("clusterIP", ""), "spec.type": spec.get("type", "")}


def _drop_what_no_longer_applies(new: Object, old: Object) -> None:
    """Clears what was set for a type that the service no longer has, unless the client changed it too.

    Upstream: dropTypeDependentFields.
    """
    after, before = new["spec"], old["spec"]

    def drop(is_so: bool, *fields: str) -> None:
        if is_so and same(after, before, *fields):
            for field in fields:
                after.pop(field, None)

    external = not is_external_name(before) and is_external_name(after)
    drop(external, "clusterIP", "clusterIPs")
    drop(external, "ipFamilies")
    drop(external, "ipFamilyPolicy")
    of_nodes = (NODE_PORT, LOAD_BALANCER)
    unserved = has_type(before, *of_nodes) and not has_type(after, *of_nodes)
    if unserved and set(node_ports(before)) >= set(node_ports(after)):
        for port in ports_of(after):
            port.pop("nodePort", None)
    drop(needs_health_check(before) and not needs_health_check(after), "healthCheckNodePort")
    balanced = has_type(before, LOAD_BALANCER) and not has_type(after, LOAD_BALANCER)
    drop(balanced, "allocateLoadBalancerNodePorts")
    drop(balanced, "loadBalancerClass")
    drop(is_reached_from_outside(before) and not is_reached_from_outside(after), "externalTrafficPolicy")
    if not has_type(after, LOAD_BALANCER):
        new["status"] = {**new["status"], "loadBalancer": {}}


async def _proxy(ctx: Context, call: SubresourceCall) -> Object:
    """`proxy`, whose name is `[<scheme>:]<name>[:<port>]`: no service here has endpoints that could be reached."""
    parts = call.name.split(":")
    scheme, name, port = {1: ("", *parts, ""), 2: ("", *parts), 3: tuple(parts)}.get(len(parts), ("", "", ""))
    if not name or scheme not in _SCHEMES:
        raise errors.bad_request(f"invalid service request {errors.go_quote(call.name)}")
    if port.isascii() and port.isdigit():
        served = ctx.catalog.find("", "v1", "services")
        assert served is not None, "this is a subresource of theirs"
        service = call.parent or await ctx.objects.read(served, call.namespace, name)
        if service is None:
            raise errors.not_found("services", "", name)
        if not any(one["port"] == int(port) for one in ports_of(service["spec"])):
            raise _unreachable(f"no service port {int(port)} found for service {errors.go_quote(name)}")
    raise _unreachable(f"no endpoints available for service {errors.go_quote(name)}")


def _unreachable(why: str) -> ApiError:
    """503 that says nothing of trying again: it would not help."""
    return ApiError(503, "ServiceUnavailable", why)


def _cluster_ip(obj: Object, _now: datetime) -> str:
    ips = cluster_ips(obj.get("spec") or {})
    return ips[0] if ips else "<none>"


def _external_ip(obj: Object, _now: datetime) -> str:
    spec = obj.get("spec") or {}
    if spec.get("type") == EXTERNAL_NAME:
        return str(spec.get("externalName", ""))
    shown = list(spec.get("externalIPs") or ())
    if spec.get("type") != LOAD_BALANCER:
        return ",".join(shown) or "<none>"
    balancer = balancer_addresses(obj)
    return ",".join([balancer, *shown] if balancer else shown) or "<pending>"


def _ports(obj: Object, _now: datetime) -> str:
    return ",".join(map(_port, ports_of(obj.get("spec") or {}))) or "<none>"


def _port(port: Object) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port', 0)}{node}/{port.get('protocol', '')}"


def _selector(obj: Object, _now: datetime) -> str:
    selector = (obj.get("spec") or {}).get("selector") or {}
    return ",".join(f"{key}={selector[key]}" for key in sorted(selector)) or "<none>"


# The API itself: clients look for it by this name. One underlay is for all clusters, so the port behind it is the one
# that servers have where nobody says otherwise.
SERVER: Final[Object] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "kubernetes",
        "namespace": "default",
        "labels": {"component": "apiserver", "provider": "kubernetes"},
    },
    "spec": {
        "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}],
        "clusterIP": str(SERVER_ADDRESS),
        "clusterIPs": [str(SERVER_ADDRESS)],
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
    },
    "status": {"loadBalancer": {}},
}

_SERVER: Final = orjson.dumps(SERVER)

SERVICES: Final = builtin.resource(
    "",
    "v1",
    "services",
    strategy=ServiceStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Type", "string", lambda obj, _: (obj.get("spec") or {}).get("type", "")),
        Column("Cluster-IP", "string", _cluster_ip),
        Column("External-IP", "string", _external_ip),
        Column("Port(s)", "string", _ports),
        builtin.AGE,
        Column("Selector", "string", _selector, priority=1),
    ),
    subresources=(connecting("", "v1", "services", "proxy", _proxy),),
)
