"""ResourceQuotas, through servers in this process: what is counted, refused, released; by one replica and by several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory
from clusterling.storage.store import Store

HOME = "/api/v1/namespaces/default"
QUOTAS = f"{HOME}/resourcequotas"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with memory.open() as opened:
        yield opened


@pytest.fixture
async def team(store: Store) -> AsyncIterator[Client]:
    async with ApiServer(store).running() as server:
        await server.clusters.create("team-a", packs="all")
        yield server.client("team-a")


def _named(name: str, kind: str, **fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields}


def _pod(name: str, **spec: Any) -> Object:
    container = {"name": "c", "image": "i", "resources": spec.pop("resources", {})}
    return _named(
        name, "Pod", spec={"containers": [container], "automountServiceAccountToken": False, **spec}
    )


async def _until(client: Client, path: str, holds: Callable[[Object], bool]) -> Object:
    async with asyncio.timeout(30):
        while not holds(found := await client.get(path)):
            await asyncio.sleep(0.01)
    return found


async def _limit(client: Client, name: str = "quota", **spec: Any) -> Object:
    """A quota that has been counted."""
    await client.post(QUOTAS, _named(name, "ResourceQuota", spec=spec))
    return await _until(
        client, f"{QUOTAS}/{name}", lambda one: one["status"].get("hard") == one["spec"]["hard"]
    )


async def _used(client: Client, name: str = "quota") -> Object:
    used: Object = (await client.get(f"{QUOTAS}/{name}"))["status"]["used"]
    return used


async def _refused(client: Client, path: str, body: Object) -> str:
    with pytest.raises(ApiError) as caught:
        await client.post(path, body)
    assert (caught.value.code, caught.value.reason) == (403, "Forbidden"), caught.value.message
    return caught.value.message


async def test_what_is_there_is_counted_and_what_comes_and_goes_is_charged_at_once(team: Client) -> None:
    await team.post(f"{HOME}/secrets", _named("before", "Secret"))
    counted = await _limit(
        team, hard={"secrets": "2", "count/secrets": "5", "count/leases.coordination.k8s.io": "1"}
    )
    assert counted["status"]["used"] == {
        "secrets": "1", "count/secrets": "1", "count/leases.coordination.k8s.io": "0",
    }  # fmt: skip
    await team.post(f"{HOME}/secrets", _named("one", "Secret"))
    assert (await _used(team))["secrets"] == "2"
    assert await _refused(team, f"{HOME}/secrets", _named("two", "Secret")) == (
        'secrets "two" is forbidden: exceeded quota: quota, requested: secrets=1, used: secrets=2, '
        "limited: secrets=2"
    )
    await team.delete(f"{HOME}/secrets/one")
    assert (await _used(team))["secrets"] == "1"
    await team.post(f"{HOME}/secrets", _named("two", "Secret"))


async def test_custom_resources_are_counted_by_their_own_name(team: Client) -> None:
    names = {"plural": "widgets", "kind": "Widget"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    await team.post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": names,
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
            },
        },
    )  # fmt: skip
    await _limit(team, hard={"count/widgets.example.com": "1"})
    path = "/apis/example.com/v1/namespaces/default/widgets"
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one"}}
    await team.post(path, widget)
    message = await _refused(team, path, {**widget, "metadata": {"name": "two"}})
    assert "exceeded quota: quota, requested: count/widgets.example.com=1" in message


async def test_a_dry_run_is_refused_as_the_write_would_be_and_charges_nothing(team: Client) -> None:
    await _limit(team, hard={"secrets": "1"})
    path = f"{HOME}/secrets"
    await team.post(path, _named("one", "Secret"), dryRun="All")
    assert await _used(team) == {"secrets": "0"}
    await team.post(path, _named("one", "Secret"))
    with pytest.raises(ApiError, match="exceeded quota"):
        await team.post(path, _named("two", "Secret"), dryRun="All")
    await team.delete(f"{path}/one", dryRun="All")
    assert await _used(team) == {"secrets": "1"}


async def test_pods_are_charged_with_what_they_ask_for_until_they_end(team: Client) -> None:
    await _limit(team, hard={"pods": "5", "count/pods": "5", "requests.cpu": "1", "limits.memory": "1Gi"})
    resources = {"requests": {"cpu": "600m"}, "limits": {"cpu": "1", "memory": "256Mi"}}
    made = await team.post(f"{HOME}/pods", _pod("one", resources=resources))
    assert await _used(team) == {
        "pods": "1", "count/pods": "1", "requests.cpu": "600m", "limits.memory": "256Mi",
    }  # fmt: skip
    assert await _refused(team, f"{HOME}/pods", _pod("two", resources=resources)) == (
        'pods "two" is forbidden: exceeded quota: quota, requested: requests.cpu=600m, used: requests.cpu=600m, '
        "limited: requests.cpu=1"
    )
    assert await _refused(team, f"{HOME}/pods", _pod("two")) == (
        'pods "two" is forbidden: failed quota: quota: must specify limits.memory for: c; requests.cpu for: c'
    )
    made["status"]["phase"] = "Succeeded"
    await team.put(f"{HOME}/pods/one/status", made)
    assert await _used(team) == {"pods": "0", "count/pods": "1", "requests.cpu": "0", "limits.memory": "0"}
    await team.post(f"{HOME}/pods", _pod("two", resources=resources))


async def test_a_quota_counts_only_what_is_in_its_scopes(team: Client) -> None:
    await _limit(team, "short", hard={"pods": "1"}, scopes=["Terminating"])
    await _limit(team, "idle", hard={"pods": "1"}, scopes=["BestEffort"])
    high = [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}]
    await _limit(team, "high", hard={"pods": "1"}, scopeSelector={"matchExpressions": high})
    await team.post(f"{HOME}/pods", _pod("a", resources={"requests": {"cpu": "1"}}))
    assert [(await _used(team, name))["pods"] for name in ("short", "idle", "high")] == ["0", "0", "0"]
    await team.post(f"{HOME}/pods", _pod("b", activeDeadlineSeconds=60))
    assert [(await _used(team, name))["pods"] for name in ("short", "idle", "high")] == ["1", "1", "0"]
    message = await _refused(team, f"{HOME}/pods", _pod("c"))
    assert "exceeded quota: idle, requested: pods=1" in message


async def test_limits_that_are_changed_are_counted_anew(team: Client) -> None:
    quota = await _limit(team, hard={"configmaps": "2"})
    await team.post(f"{HOME}/secrets", _named("one", "Secret"))
    quota["spec"]["hard"] = {"secrets": "1"}
    await team.put(f"{QUOTAS}/quota", quota)
    changed = await _until(team, f"{QUOTAS}/quota", lambda one: "secrets" in one["status"]["hard"])
    assert changed["status"] == {"hard": {"secrets": "1"}, "used": {"secrets": "1"}}
    assert "exceeded quota" in await _refused(team, f"{HOME}/secrets", _named("two", "Secret"))
    await team.post(f"{HOME}/configmaps", _named("one", "ConfigMap"))
    await team.post(f"{HOME}/configmaps", _named("two", "ConfigMap"))


async def test_of_many_writers_at_several_replicas_as_many_get_through_as_the_quota_has_room_for(
    store: Store,
) -> None:
    async with (
        ApiServer(store).running() as first,
        ApiServer(store, run_controllers=False).running() as second,
    ):
        await first.clusters.create("team-a", packs="all")
        clients = [first.client("team-a"), second.client("team-a")]
        await _limit(clients[0], hard={"secrets": "20"})

        async def attempt(number: int) -> bool:
            try:
                await clients[number % 2].post(f"{HOME}/secrets", _named(f"c{number}", "Secret"))
            except ApiError as error:
                assert error.code == 403, error.message
                return False
            return True

        got = await asyncio.gather(*(attempt(number) for number in range(60)))
        assert sum(got) == 20
        assert len((await clients[0].get(f"{HOME}/secrets"))["items"]) == 20
        assert await _used(clients[1]) == {"secrets": "20"}


async def test_writes_under_way_when_a_quota_is_made_are_all_in_its_count(team: Client) -> None:
    async def attempt(number: int) -> None:
        await team.post(f"{HOME}/secrets", _named(f"c{number}", "Secret"))
        if number % 3 == 0:
            await team.delete(f"{HOME}/secrets/c{number}")

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(attempt(number))
            if number == 30:
                group.create_task(_limit(team, hard={"secrets": "1000"}))
    there = len((await team.get(f"{HOME}/secrets"))["items"])
    assert there == 40
    await _until(team, f"{QUOTAS}/quota", lambda one: one["status"]["used"] == {"secrets": str(there)})


@pytest.mark.parametrize(
    ("spec", "causes"),
    [
        ({"hard": {"nope": "1"}}, ["must be a standard resource type or fully qualified", "must be a standard resource for quota"]),
        ({"hard": {"storage": "1"}}, ["must be a standard resource for quota"]),
        ({"hard": {"pods": "1500m"}}, ["must be an integer"]),
        ({"hard": {"cpu": "-1"}}, ["must be greater than or equal to 0"]),
        ({"hard": {"secrets": "1"}, "scopes": ["BestEffort"]}, ["unsupported scope applied to resource"]),
        ({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}, ["conflicting scopes"]),
        ({"hard": {"pods": "1"}, "scopes": ["Odd"]}, ["unsupported scope"]),
    ],
)  # fmt: skip
async def test_a_quota_that_makes_no_sense_is_refused_in_upstreams_words(
    team: Client, spec: Object, causes: list[str]
) -> None:
    with pytest.raises(ApiError) as caught:
        await team.post(QUOTAS, _named("quota", "ResourceQuota", spec=spec))
    assert caught.value.details is not None
    assert [one["message"].rpartition(": ")[2] for one in caught.value.details["causes"]] == causes


async def test_scopes_stay_and_status_is_the_servers(team: Client) -> None:
    made = await team.post(
        QUOTAS,
        _named("quota", "ResourceQuota", spec={"hard": {"pods": "1000m"}}, status={"hard": {"pods": "9"}}),
    )
    assert (made["spec"], made["status"]) == ({"hard": {"pods": "1"}}, {})
    made = await _until(team, f"{QUOTAS}/quota", lambda one: "hard" in one["status"])
    made["spec"]["scopes"] = ["BestEffort"]
    with pytest.raises(
        ApiError, match=r"spec\.scopes: Invalid value: \[\"BestEffort\"\]: field is immutable"
    ):
        await team.put(f"{QUOTAS}/quota", made)


async def test_whole_collections_and_namespaces_go_however_their_quotas_stand(team: Client) -> None:
    space = "/api/v1/namespaces/space"
    await team.post("/api/v1/namespaces", _named("space", "Namespace"))
    await team.post(
        f"{space}/resourcequotas", _named("quota", "ResourceQuota", spec={"hard": {"secrets": "40"}})
    )
    await _until(team, f"{space}/resourcequotas/quota", lambda one: "hard" in one["status"])
    for number in range(40):
        await team.post(f"{space}/secrets", _named(f"c{number}", "Secret"))
    await team.delete(f"{space}/secrets", labelSelector="nobody=has")
    await team.delete(f"{space}/secrets", fieldSelector="metadata.name=c7")
    used = (await team.get(f"{space}/resourcequotas/quota"))["status"]["used"]
    assert used == {"secrets": "39"}
    await team.delete("/api/v1/namespaces/space")
    async with asyncio.timeout(30):
        with pytest.raises(ApiError, match="not found"):
            while True:
                await team.get("/api/v1/namespaces/space")
                await asyncio.sleep(0.01)


async def test_quotas_count_quotas_and_themselves(team: Client) -> None:
    await _limit(team, hard={"resourcequotas": "2"})
    assert await _used(team) == {"resourcequotas": "1"}
    await _limit(team, "second", hard={"secrets": "1"})
    body = _named("third", "ResourceQuota", spec={"hard": {"secrets": "1"}})
    assert "requested: resourcequotas=1, used: resourcequotas=2" in await _refused(team, QUOTAS, body)
    await team.delete(f"{QUOTAS}/second")
    assert await _used(team) == {"resourcequotas": "1"}
    await team.delete(f"{QUOTAS}/quota")


async def test_an_update_that_creates_is_charged_as_a_create(team: Client) -> None:
    await _limit(team, hard={"count/leases.coordination.k8s.io": "1"})
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    made = await team.put(f"{path}/one", {**lease, "metadata": {"name": "one"}})
    made["spec"] = {"holderIdentity": "a"}
    await team.put(f"{path}/one", made)
    assert await _used(team) == {"count/leases.coordination.k8s.io": "1"}
    with pytest.raises(ApiError, match="exceeded quota"):
        await team.put(f"{path}/two", {**lease, "metadata": {"name": "two"}})


async def test_services_are_charged_with_their_node_ports_as_their_type_changes(team: Client) -> None:
    await _limit(team, hard={"services": "5", "services.nodeports": "2", "services.loadbalancers": "1"})
    # Every cluster begins with one in `default`, its own.
    ports = [{"name": name, "port": at + 1} for at, name in enumerate(("a", "b"))]
    made = await team.post(
        f"{HOME}/services", _named("one", "Service", spec={"ports": ports, "type": "NodePort"})
    )
    assert await _used(team) == {"services": "2", "services.nodeports": "2", "services.loadbalancers": "0"}
    body = _named("two", "Service", spec={"ports": ports[:1], "type": "LoadBalancer"})
    assert await _refused(team, f"{HOME}/services", body) == (
        'services "two" is forbidden: exceeded quota: quota, requested: services.nodeports=1, '
        "used: services.nodeports=2, limited: services.nodeports=2"
    )
    made["spec"]["type"] = "ClusterIP"
    for port in made["spec"]["ports"]:
        del port["nodePort"]
    await team.put(f"{HOME}/services/one", made)
    assert await _used(team) == {"services": "2", "services.nodeports": "0", "services.loadbalancers": "0"}
    await team.post(f"{HOME}/services", body)


async def test_a_clusters_quota_is_its_own(store: Store) -> None:
    async with ApiServer(store).running() as server:
        for name in ("a", "b"):
            await server.clusters.create(name, packs="all")
        await _limit(server.client("a"), hard={"secrets": "0"})
        await _refused(server.client("a"), f"{HOME}/secrets", _named("one", "Secret"))
        await server.client("b").post(f"{HOME}/secrets", _named("one", "Secret"))
