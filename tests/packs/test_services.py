from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import replace
from typing import Any

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.machinery.selectors import FieldSelector
from clusterling.packs.core.services_claims import CLAIMS_MAX, NODE_PORTS
from clusterling.registry import views
from clusterling.registry.admission import Admission
from clusterling.registry.catalog import Catalog
from clusterling.registry.objects import ObjectStore
from clusterling.registry.options import DeleteOptions, ListOptions, WriteOptions
from clusterling.registry.resource import SubresourceCall
from clusterling.storage.cache import CachedStore
from tests.packs.conftest import Cluster, causes

ADDRESSES = "networking.k8s.io/ipaddresses"


def _ports() -> list[dict[str, Any]]:
    """Made anew for each: what is written is read in place."""
    return [{"port": 80}]


async def _addresses(cluster: Cluster) -> set[str]:
    return {one["metadata"]["name"] for one in await cluster.found(ADDRESSES, ListOptions())}


async def _claimed_ports(cluster: Cluster) -> set[int]:
    page = await cluster.store.list("~claims/nodeports/")
    return {int(entry.key.rpartition("/")[2]) for entry in page.entries}


async def _changed(cluster: Cluster, name: str, **spec: Any) -> Object:
    """The service with these fields of its spec replaced; None takes one away."""
    before = await cluster.get("services", name)
    after = {key: value for key, value in {**before["spec"], **spec}.items() if value is not None}
    return await cluster.update("services", name, spec=after)


async def _refused_change(cluster: Cluster, name: str, **spec: Any) -> list[tuple[str, str]]:
    with pytest.raises(ApiError) as caught:
        await _changed(cluster, name, **spec)
    return causes(caught.value)


async def test_a_service_gets_an_address_and_what_it_leaves_open(cluster: Cluster) -> None:
    made = await cluster.create("services", "a", spec={"ports": _ports(), "selector": {"x": "y", "a": "b"}})
    address = made["spec"]["clusterIP"]
    assert made["spec"] == {
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "selector": {"x": "y", "a": "b"},
        "clusterIP": address,
        "clusterIPs": [address],
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
    }
    assert made["status"] == {"loadBalancer": {}}
    assert "generation" not in made["metadata"]
    # The lower part of the range is left to those who ask for an address by name.
    assert 17 <= int(address.rpartition(".")[2]) <= 254
    cluster.clock.turn(1)
    row = ["a", "ClusterIP", address, "<none>", "80/TCP", "1s", "a=b,x=y"]
    assert cluster.row("services", made) == row


async def test_the_address_is_an_object_for_as_long_as_the_service_is(cluster: Cluster) -> None:
    await cluster.create("services", "a", spec={"ports": _ports(), "clusterIP": "10.0.0.10"})
    held = await cluster.get(ADDRESSES, "10.0.0.10")
    assert held["spec"] == {"parentRef": {"resource": "services", "namespace": "default", "name": "a"}}
    assert held["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    assert held["metadata"]["uid"]
    _, gone = await cluster.delete("services", "a")
    assert gone
    assert await _addresses(cluster) == {"10.0.0.1"}


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.1", "provided IP is already allocated"),
        ("10.0.0.77", "provided IP is already allocated"),
        ("10.0.1.1", "the provided network does not match the current range"),
        ("10.0.0.0", "the provided network does not match the current range"),
        ("10.0.0.255", "the provided network does not match the current range"),
    ],
)
async def test_an_address_that_is_taken_or_of_no_range_is_refused(
    cluster: Cluster, address: str, why: str
) -> None:
    await cluster.create(
        ADDRESSES, "10.0.0.77", spec={"parentRef": {"resource": "gateways", "name": "theirs"}}
    )
    error = await cluster.refused("services", "a", spec={"ports": _ports(), "clusterIP": address})
    message = f'Invalid value: ["{address}"]: failed to allocate IP {address}: {why}'
    assert causes(error) == [("spec.clusterIPs", message)]


async def _race(cluster: Cluster, specs: list[dict[str, Any]], named: str = "s") -> list[Object | ApiError]:
    """Creates them all at once, over two replicas; what each was answered."""
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(2):
            cache = await stack.enter_async_context(CachedStore(cluster.store, finish=views.finish))
            replicas.append(ObjectStore(cache, cluster.store, Admission(), cluster.clock))
        served, few = cluster.served("services"), asyncio.Semaphore(16)

        async def one(number: int, spec: dict[str, Any]) -> Object | ApiError:
            objects = replicas[number % 2]
            obj = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": f"{named}{number}"},
                "spec": {"ports": _ports(), **deepcopy(spec)},
            }
            ctx = _context_over(cluster, objects)
            async with few:
                try:
                    found: Object = orjson.loads(
                        await objects.create(ctx, served, "default", obj, WriteOptions())
                    )
                    return found
                except ApiError as error:
                    return error

        return list(await asyncio.gather(*(one(number, spec) for number, spec in enumerate(specs))))


def _context_over(cluster: Cluster, objects: ObjectStore) -> Any:
    return replace(cluster, objects=objects).context()


async def test_a_range_is_given_out_to_the_last_address_and_each_once_over_two_replicas(
    cluster: Cluster,
) -> None:
    made = await _race(cluster, [{} for _ in range(260)])
    given = [one["spec"]["clusterIP"] for one in made if isinstance(one, dict)]
    assert len(given) == len(set(given)) == 253
    refused = [one for one in made if isinstance(one, ApiError)]
    assert {error.code for error in refused} == {500}
    assert all("range is full" in error.message for error in refused)
    assert await _addresses(cluster) == {"10.0.0.1", *given}


async def test_of_many_who_ask_for_one_address_or_port_exactly_one_gets_it(cluster: Cluster) -> None:
    made = await _race(cluster, [{"clusterIP": "10.0.0.9"}] * 12)
    assert sum(isinstance(one, dict) for one in made) == 1
    ports = {"type": "NodePort", "ports": [{"port": 1, "nodePort": 30005}]}
    made = await _race(cluster, [ports] * 12, named="p")
    assert sum(isinstance(one, dict) for one in made) == 1
    assert await _claimed_ports(cluster) == {30005}


async def test_what_a_failed_write_claimed_nobody_has(cluster: Cluster) -> None:
    wrong = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30007}], "trafficDistribution": "?"}
    await cluster.refused("services", "a", spec={**wrong, "clusterIP": "10.0.0.9"})
    assert await _addresses(cluster) == {"10.0.0.1"}
    assert not await _claimed_ports(cluster)


async def test_an_address_taken_from_a_service_comes_back_with_its_next_write(cluster: Cluster) -> None:
    await cluster.create("services", "a", spec={"ports": _ports(), "clusterIP": "10.0.0.10"})
    await cluster.delete(ADDRESSES, "10.0.0.10")
    await _changed(cluster, "a", selector={"x": "y"})
    assert "10.0.0.10" in await _addresses(cluster)


async def test_an_address_with_finalizers_begins_to_go_with_its_service(cluster: Cluster) -> None:
    await cluster.create("services", "a", spec={"ports": _ports(), "clusterIP": "10.0.0.10"})
    held = await cluster.get(ADDRESSES, "10.0.0.10")
    await cluster.update(
        ADDRESSES, "10.0.0.10", spec=held["spec"], metadata={"finalizers": ["example.com/wait"]}
    )
    await cluster.delete("services", "a")
    assert "deletionTimestamp" in (await cluster.get(ADDRESSES, "10.0.0.10"))["metadata"]


async def test_a_second_range_serves_once_it_is_there(cluster: Cluster) -> None:
    ranges = "networking.k8s.io/servicecidrs"
    await cluster.create(ranges, "more", spec={"cidrs": ["10.5.0.0/30"]})
    await cluster.create("services", "a", spec={"ports": _ports(), "clusterIP": "10.5.0.2"})
    await cluster.delete(ranges, "kubernetes")
    made = await cluster.create("services", "b", spec={"ports": _ports()})
    assert made["spec"]["clusterIP"] == "10.5.0.1"
    error = await cluster.refused("services", "c", spec={"ports": _ports()})
    assert error.message == (
        'Internal error occurred: failed to allocate a serviceIP for Service "c": range is full'
    )


@pytest.mark.parametrize(
    ("spec", "families", "policy"),
    [
        ({}, ["IPv4", "IPv6"], "RequireDualStack"),
        ({"selector": {"a": "b"}}, ["IPv4"], "SingleStack"),
        ({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}, ["IPv6"], "SingleStack"),
        ({"ipFamilies": ["IPv6"]}, ["IPv6", "IPv4"], "RequireDualStack"),
    ],
)
async def test_a_headless_service_has_no_address_and_the_families_it_asks_for(
    cluster: Cluster, spec: dict[str, Any], families: list[str], policy: str
) -> None:
    made = (await cluster.create("services", "a", spec={**spec, "clusterIP": "None"}))["spec"]
    assert (made["clusterIPs"], made["ipFamilies"], made["ipFamilyPolicy"]) == (["None"], families, policy)
    assert await _addresses(cluster) == {"10.0.0.1"}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"clusterIP": "x"}, "spec.clusterIPs[0]",
         'Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
        ({"clusterIP": "10.0.0.010"}, "spec.clusterIPs[0]", 'Invalid value: "10.0.0.010": must not have leading 0s'),
        ({"clusterIP": "::1"}, "spec.clusterIPs[0]",
         'Invalid value: ["::1"]: IPv6 is not configured on this cluster'),
        ({"clusterIPs": ["10.0.0.9"]}, "spec.clusterIPs",
         'Invalid value: ["10.0.0.9"]: must be empty when `clusterIP` is not specified'),
        ({"clusterIP": "10.0.0.8", "clusterIPs": ["10.0.0.9"]}, "spec.clusterIPs",
         'Invalid value: ["10.0.0.9"]: first value must match `clusterIP`'),
        ({"ipFamilies": ["IPv6"]}, "spec.ipFamilies[0]",
         'Invalid value: "IPv6": not configured on this cluster'),
        ({"ipFamilyPolicy": "RequireDualStack"}, "spec.ipFamilyPolicy",
         'Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services'),
        ({"clusterIP": "10.0.0.9", "ipFamilies": ["IPv6"]}, "spec.clusterIPs[0]",
         'Invalid value: "10.0.0.9": expected an IPv6 value as indicated by `ipFamilies[0]`'),
        ({"ports": []}, "spec.ports", "Required value"),
        ({"type": "NodePort", "clusterIP": "None"}, "spec.clusterIPs[0]",
         'Invalid value: "None": may not be set to \'None\' for NodePort services'),
        ({"ports": [{"port": 80, "nodePort": 30001}]}, "spec.ports[0].nodePort",
         "Forbidden: may not be used when `type` is 'ClusterIP'"),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
         "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
         "Invalid value: 86401: must be greater than 0 and less than 86400"),
        ({"externalIPs": ["127.0.0.1"]}, "spec.externalIPs[0]",
         'Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'),
        ({"loadBalancerClass": "x"}, "spec.loadBalancerClass",
         "Forbidden: may only be used when `type` is 'LoadBalancer'"),
        ({"externalTrafficPolicy": "Local"}, "spec.externalTrafficPolicy",
         'Invalid value: "Local": may only be set for externally-accessible services'),
        ({"type": "ExternalName"}, "spec.externalName", "Required value"),
    ],
)  # fmt: skip
async def test_what_does_not_go_together_is_refused_in_upstreams_words(
    cluster: Cluster, spec: dict[str, Any], field: str, message: str
) -> None:
    error = await cluster.refused("services", "a", spec={"ports": _ports(), **spec})
    assert causes(error) == [(field, message)]


async def test_ports_are_named_apart_and_told_of_each(cluster: Cluster) -> None:
    ports = [{"port": 80}, {"port": 80, "name": "x"}, {"port": 81, "name": "x", "targetPort": "NO"}]
    error = await cluster.refused("services", "a", spec={"ports": ports})
    twice = '{"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}'
    letters = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    assert causes(error) == [
        ("spec.ports[0].name", "Required value"),
        ("spec.ports[2].name", 'Duplicate value: "x"'),
        ("spec.ports[2].targetPort", f'Invalid value: "NO": {letters}'),
        ("spec.ports[2].targetPort", 'Invalid value: "NO": must contain at least one letter (a-z)'),
        ("spec.ports[1]", f"Duplicate value: {twice}"),
    ]


async def test_node_ports_are_claimed_kept_and_let_go(cluster: Cluster) -> None:
    ports = [{"port": 80, "name": "a", "nodePort": 30010}, {"port": 81, "name": "b"}]
    made = await cluster.create("services", "a", spec={"type": "NodePort", "ports": ports})
    second = made["spec"]["ports"][1]["nodePort"]
    assert second in NODE_PORTS
    assert await _claimed_ports(cluster) == {30010, second}
    # What a client does not repeat stays, by the port's name.
    kept = await cluster.update(
        "services", "a", spec={"type": "NodePort", "ports": [{"port": 82, "name": "b"}]}
    )
    assert [port["nodePort"] for port in kept["spec"]["ports"]] == [second]
    assert await _claimed_ports(cluster) == {second}
    plain = await _changed(cluster, "a", type="ClusterIP")
    assert "nodePort" not in plain["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in plain["spec"]
    assert not await _claimed_ports(cluster)


async def test_one_port_over_two_protocols_shares_a_node_port(cluster: Cluster) -> None:
    ports = [{"port": 53, "name": "t"}, {"port": 53, "name": "u", "protocol": "UDP"}]
    made = await cluster.create("services", "a", spec={"type": "NodePort", "ports": ports})
    given = {port["nodePort"] for port in made["spec"]["ports"]}
    assert len(given) == 1
    assert await _claimed_ports(cluster) == given


@pytest.mark.parametrize(
    ("port", "why"),
    [
        (30001, "provided port is already allocated"),
        (3, "provided port is not in the valid range. The range of valid ports is 30000-32767"),
    ],
)
async def test_a_node_port_that_cannot_be_had_is_refused(cluster: Cluster, port: int, why: str) -> None:
    spec = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}
    await cluster.create("services", "a", spec=spec)
    error = await cluster.refused(
        "services", "b", spec={"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}
    )
    assert causes(error) == [("spec.ports[0].nodePort", f"Invalid value: {port}: {why}")]


async def test_more_node_ports_than_one_write_can_claim_are_refused(cluster: Cluster) -> None:
    ports = [{"port": number, "name": f"p{number}"} for number in range(1, CLAIMS_MAX + 2)]
    error = await cluster.refused("services", "a", spec={"type": "NodePort", "ports": ports})
    assert causes(error) == [
        ("spec.ports", f"Too many: {CLAIMS_MAX + 1}: must have at most {CLAIMS_MAX} items")
    ]
    made = await cluster.create("services", "a", spec={"ports": ports})
    assert len(made["spec"]["ports"]) == CLAIMS_MAX + 1


async def test_what_has_as_many_node_ports_and_owners_as_it_may_can_be_deleted(cluster: Cluster) -> None:
    def owners(count: int) -> dict[str, Any]:
        one = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}
        return {"ownerReferences": [{**one, "uid": f"u{number}"} for number in range(count)]}

    ports = [{"port": number, "name": f"p{number}"} for number in range(1, CLAIMS_MAX - 49)]
    spec = {"type": "NodePort", "ports": ports, "clusterIP": "10.0.0.10"}
    await cluster.refused("services", "a", metadata=owners(51), spec=deepcopy(spec))
    await cluster.create("services", "a", metadata=owners(49), spec=deepcopy(spec))
    held = await cluster.get(ADDRESSES, "10.0.0.10")
    await cluster.update(ADDRESSES, "10.0.0.10", metadata=owners(4), spec=held["spec"])
    _, gone = await cluster.delete("services", "a")
    assert gone
    assert not await _claimed_ports(cluster)
    assert not (await cluster.store.list("~owners/")).entries


async def test_a_cluster_without_the_kind_of_addresses_gives_each_once_all_the_same(cluster: Cluster) -> None:
    kinds = (one for one in cluster.catalog.resources if one.group != "networking.k8s.io")
    alone = replace(cluster, catalog=Catalog(kinds))
    await cluster.delete(ADDRESSES, "10.0.0.1")
    error = await alone.refused("services", "a", spec={"ports": _ports(), "clusterIP": "10.0.0.1"})
    assert "already allocated" in error.message
    await alone.create("services", "a", spec={"ports": _ports(), "clusterIP": "10.0.0.2"})
    error = await alone.refused("services", "b", spec={"ports": _ports(), "clusterIP": "10.0.0.2"})
    assert "already allocated" in error.message


async def test_a_balancer_has_a_port_for_its_health_while_it_needs_one(cluster: Cluster) -> None:
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    made = (await cluster.create("services", "a", spec={**spec, "ports": _ports()}))["spec"]
    checked = made["healthCheckNodePort"]
    assert await _claimed_ports(cluster) == {checked, made["ports"][0]["nodePort"]}
    assert await _refused_change(cluster, "a", healthCheckNodePort=31999) == [
        ("spec.healthCheckNodePort", "Forbidden: field is immutable")
    ]
    after = (await _changed(cluster, "a", externalTrafficPolicy="Cluster"))["spec"]
    assert "healthCheckNodePort" not in after
    assert await _claimed_ports(cluster) == {made["ports"][0]["nodePort"]}
    error = await cluster.refused("services", "b", spec={**spec, "ports": _ports(), "healthCheckNodePort": 5})
    assert (error.code, error.reason) == (500, "InternalError")


async def test_an_address_may_not_change_and_a_type_may(cluster: Cluster) -> None:
    await cluster.create("services", "a", spec={"ports": _ports(), "clusterIP": "10.0.0.10"})
    changed = 'Invalid value: ["10.0.0.30"]: may not change once set'
    assert await _refused_change(cluster, "a", clusterIP="10.0.0.30", clusterIPs=None) == [
        ("spec.clusterIPs[0]", changed)
    ]
    away = (await _changed(cluster, "a", type="ExternalName", externalName="example.com"))["spec"]
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"} & set(
        away
    )
    assert await _addresses(cluster) == {"10.0.0.1"}
    back = (await _changed(cluster, "a", type="ClusterIP", clusterIP="10.0.0.10"))["spec"]
    assert back["clusterIPs"] == ["10.0.0.10"]
    assert "10.0.0.10" in await _addresses(cluster)


async def test_a_put_without_an_address_keeps_it_and_to_a_new_name_creates(cluster: Cluster) -> None:
    made = await cluster.update("services", "a", spec={"ports": _ports()})
    again = await cluster.update("services", "a", spec={"ports": [{"port": 81}]})
    assert again["spec"]["clusterIP"] == made["spec"]["clusterIP"]


async def test_a_dry_run_claims_nothing_and_shows_what_upstream_does(cluster: Cluster) -> None:
    served = cluster.served("services")
    ctx = cluster.context()
    dry = type(ctx)(
        ctx.user, ctx.cluster, ctx.cluster_id, ctx.objects, ctx.catalog, ctx.ports, True, ctx.warnings, ""
    )
    spec = {"type": "NodePort", "ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}]}
    obj = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec}
    made = orjson.loads(await cluster.objects.create(dry, served, "default", obj, WriteOptions()))
    assert made["spec"]["clusterIP"] == "10.0.0.0"
    assert [port["nodePort"] for port in made["spec"]["ports"]] == [32769, 32770]
    assert await _addresses(cluster) == {"10.0.0.1"}
    assert not await _claimed_ports(cluster)


async def test_status_is_changed_by_its_own_path_alone(cluster: Cluster) -> None:
    made = await cluster.create("services", "a", spec={"type": "LoadBalancer", "ports": _ports()})
    status = {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "b.example.com"}]}}
    after = await cluster.update("services", "a", "status", spec={"ports": []}, status=status)
    assert after["spec"] == made["spec"]
    assert after["status"]["loadBalancer"]["ingress"][0] == {"ip": "1.2.3.4", "ipMode": "VIP"}
    assert cluster.row("services", after)[3] == "1.2.3.4,b.example.com"
    assert (await _changed(cluster, "a", selector={"x": "y"}))["status"] == after["status"]
    plain = await _changed(cluster, "a", type="ClusterIP")
    assert plain["status"] == {"loadBalancer": {}}
    with pytest.raises(ApiError) as caught:
        await cluster.update("services", "a", "status", status=status)
    why = "Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
    assert causes(caught.value) == [("status.loadBalancer.ingress", why)]


async def test_services_are_selected_by_address_and_type(cluster: Cluster) -> None:
    await cluster.create("services", "a", spec={"clusterIP": "None"})
    await cluster.create("services", "b", spec={"type": "ExternalName", "externalName": "x.y"})
    for text, names in (("spec.clusterIP=None", ["a"]), ("spec.type=ExternalName", ["b"])):
        options = ListOptions(field_selector=FieldSelector.parse(text))
        assert [one["metadata"]["name"] for one in await cluster.found("services", options)] == names


async def test_what_is_valid_and_of_no_use_is_told(cluster: Cluster) -> None:
    spec = {
        "ports": _ports(),
        "externalName": "x.y",
        "externalIPs": ["1.2.3.4"],
        "trafficDistribution": "PreferClose",
    }
    await cluster.create("services", "a", spec=spec)
    assert cluster.warnings == [
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        'spec.externalName is ignored when spec.type is not "ExternalName"',
        'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"',
    ]


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("kubernetes", 503, 'no endpoints available for service "kubernetes"'),
        ("https:kubernetes:443", 503, 'no endpoints available for service "kubernetes"'),
        ("kubernetes:81", 503, 'no service port 81 found for service "kubernetes"'),
        ("a:b:c:d", 400, 'invalid service request "a:b:c:d"'),
        ("nope:80", 404, 'services "nope" not found'),
    ],
)
async def test_a_proxy_has_nowhere_to_go(cluster: Cluster, name: str, code: int, message: str) -> None:
    proxy = cluster.served("services").resource.subresources["proxy"]
    with pytest.raises(ApiError) as caught:
        await proxy.function(cluster.context(), SubresourceCall("get", name, "default", None, None))
    assert (caught.value.code, caught.value.message) == (code, message)


async def test_every_cluster_begins_with_the_service_of_its_api(cluster: Cluster) -> None:
    made = await cluster.get("services", "kubernetes")
    assert made["spec"]["clusterIPs"] == ["10.0.0.1"]
    assert (await cluster.get(ADDRESSES, "10.0.0.1"))["spec"]["parentRef"]["name"] == "kubernetes"


async def test_the_service_of_the_api_comes_back_as_another_in_the_write_that_deletes_it(
    cluster: Cluster,
) -> None:
    before = await cluster.get("services", "kubernetes")
    deleted, gone = await cluster.delete("services", "kubernetes")
    assert gone
    assert deleted["metadata"]["uid"] == before["metadata"]["uid"]
    after = await cluster.get("services", "kubernetes")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    assert await _addresses(cluster) == {"10.0.0.1"}


async def test_deleting_a_service_answers_with_it(cluster: Cluster) -> None:
    assert cluster.served("services").resource.strategy.returns_deleted_object
    await cluster.create("services", "a", spec={"ports": _ports()})
    served = cluster.served("services")
    await cluster.objects.delete(cluster.context(), served, "default", "a", DeleteOptions())
    assert await _addresses(cluster) == {"10.0.0.1"}
