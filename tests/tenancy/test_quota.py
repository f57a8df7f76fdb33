"""Quotas of logical clusters, through whole servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.registry.strategy import User
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.storage import memory
from clusterling.storage.store import Measure, Store
from clusterling.tenancy.authorization import MASTERS
from clusterling.tenancy.quota import NO_QUOTA, Quota, Quotas, limits_of, parse_quota, quota_of
from clusterling.tenancy.rates import LEASES_PER_S, Rates
from tests.tenancy.clocks import Turned

MAPS = "/api/v1/namespaces/default/configmaps"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TEAM = f"{LOGICAL_CLUSTERS}/team"
MERGE: Final = "application/merge-patch+json"


@asynccontextmanager
async def running(store: Store, default: Quota = NO_QUOTA) -> AsyncIterator[ApiServer]:
    server = ApiServer(store, external_url="https://127.0.0.1:1", default_quota=default)
    async with server.running():
        yield server


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with memory.open() as store, running(store) as server:
        await server.clusters.create("team")
        yield server


def a_map(name: str, size: int = 0) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"of": "x" * size},
    }


async def limit(server: ApiServer, hard: Object | None = None, soft: Object | None = None) -> None:
    spec = {"quota": {"hard": hard, "soft": soft}}
    await server.client("root").patch(TEAM, {"spec": spec}, content_type=MERGE)


async def usage(server: ApiServer) -> Object:
    found: Object = await server.client("root").get(f"{TEAM}/usage")
    return found


async def refused(work: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value


async def test_one_object_too_many_is_refused_in_upstreams_words_and_says_who_can_help(
    server: ApiServer,
) -> None:
    used = (await usage(server))["used"]["objects"]
    await limit(server, {"objects": used + 2})
    team = server.client("team")
    await team.post(MAPS, a_map("a"))
    await team.post(MAPS, a_map("b"))
    error = await refused(team.post(MAPS, a_map("c")))
    assert (error.code, error.reason) == (403, "Forbidden")
    assert error.message.startswith(
        f'configmaps "c" is forbidden: exceeded quota: team, requested: objects=1, used: objects={used + 2},'
        f" limited: objects={used + 2} "
    )
    assert "clusterling quota team set objects=" in error.message
    await team.patch(f"{MAPS}/a", {"data": {"of": "more"}}, content_type=MERGE)
    await team.delete(f"{MAPS}/a")
    await team.post(MAPS, a_map("c"))


@pytest.mark.parametrize("name", ["count/configmaps", "bytes", "objectBytes"])
async def test_every_limit_on_what_is_kept_is_named_where_it_refuses(server: ApiServer, name: str) -> None:
    team = server.client("team")
    await team.post(MAPS, a_map("a", 2000))
    used = (await usage(server))["used"]
    await limit(server, {name: used["bytes"] - 1 if name == "bytes" else 1})
    error = await refused(team.post(MAPS, a_map("b")))
    assert error.code == 403 and f"limited: {name}=" in error.message
    # What makes it less passes, though it stays too much.
    await team.patch(f"{MAPS}/a", {"data": {"of": "x"}}, content_type=MERGE)
    await team.delete(f"{MAPS}/a")


async def test_what_waits_for_finalizers_can_be_deleted_though_there_is_no_room(server: ApiServer) -> None:
    team = server.client("team")
    held = a_map("a", 100)
    held["metadata"]["finalizers"] = ["example.com/held"]
    await team.post(MAPS, held)
    await limit(server, {"bytes": 1, "objects": 1})
    assert (await team.delete(f"{MAPS}/a"))["metadata"]["deletionTimestamp"]
    grown = {"data": {"of": "x" * 4000}}
    assert (await refused(team.patch(f"{MAPS}/a", grown, content_type=MERGE))).code == 403
    await team.patch(f"{MAPS}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert (await refused(team.get(f"{MAPS}/a"))).code == 404


async def test_a_namespace_goes_though_there_is_no_room(server: ApiServer) -> None:
    team = server.client("team")
    await team.post("/api/v1/namespaces", {"metadata": {"name": "one"}})
    await team.post("/api/v1/namespaces/one/configmaps", a_map("a", 100))
    await limit(server, {"bytes": 1, "objects": 1})
    await team.delete("/api/v1/namespaces/one")
    async with asyncio.timeout(20):
        while "one" in str(await team.get("/api/v1/namespaces")):
            await asyncio.sleep(0.02)


async def test_namespaces_and_definitions_are_limited_by_their_own_names(server: ApiServer) -> None:
    await limit(server, {"namespaces": 1, "customresourcedefinitions": 0})
    team = server.client("team")
    await team.post("/api/v1/namespaces", {"metadata": {"name": "one"}})
    error = await refused(team.post("/api/v1/namespaces", {"metadata": {"name": "two"}}))
    assert "limited: namespaces=1" in error.message


async def test_of_parallel_writers_as_many_pass_as_may(server: ApiServer) -> None:
    await limit(server, {"count/configmaps": 10})
    team = server.client("team")
    answers = await asyncio.gather(
        *(team.post(MAPS, a_map(f"m{n}")) for n in range(64)), return_exceptions=True
    )
    assert sum(isinstance(answer, dict) for answer in answers) == 10
    assert (await usage(server))["used"]["count/configmaps"] == 10


async def test_a_new_limit_counts_at_once_and_may_be_below_what_there_is(server: ApiServer) -> None:
    team = server.client("team")
    for name in "abc":
        await team.post(MAPS, a_map(name))
    await limit(server, {"count/configmaps": 1})
    assert (await refused(team.post(MAPS, a_map("d")))).code == 403
    await limit(server, {"count/configmaps": 4})
    await team.post(MAPS, a_map("d"))


async def test_the_default_holds_for_clusters_that_do_not_say_otherwise() -> None:
    async with memory.open() as store, running(store, parse_quota("count/configmaps=1")) as server:
        await server.clusters.create("team")
        await server.clusters.create("large", {"quota": {"hard": {"count/configmaps": "1k"}}})
        for name, last in (("team", 1), ("large", 3)):
            client = server.client(name)
            for number in range(last):
                await client.post(MAPS, a_map(f"m{number}"))
        assert (await refused(server.client("team").post(MAPS, a_map("more")))).code == 403


async def test_a_cluster_that_is_deleted_leaves_no_totals_behind() -> None:
    async with memory.open() as store, running(store) as server:
        made = await server.clusters.create("team")
        await server.client("team").post(MAPS, a_map("a"))
        assert await store.usage(f"{made.id}/")
        await server.clusters.delete("team")
        async with asyncio.timeout(20):
            while await store.usage(f"{made.id}/"):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "quota",
    [
        {"hard": {"pods": 3}},
        {"hard": {"objects": "many"}},
        {"hard": {"objects": -1}},
        {"hard": {"count/": 3}},
        {"soft": {"watches": 3}},
    ],
)
async def test_what_is_no_quota_is_refused(server: ApiServer, quota: Object) -> None:
    root = server.client("root")
    error = await refused(root.patch(TEAM, {"spec": {"quota": quota}}, content_type=MERGE))
    assert error.code == 422 and "spec.quota" in error.message


async def test_root_has_no_quota(server: ApiServer) -> None:
    work = server.client("root").patch(
        f"{LOGICAL_CLUSTERS}/root", {"spec": {"quota": {"hard": {"objects": 1}}}}, content_type=MERGE
    )
    assert (await refused(work)).code == 422


async def test_usage_tells_limits_and_what_is_used(server: ApiServer) -> None:
    await limit(server, {"objects": "1k"}, {"bytes": "1Mi"})
    await server.client("team").post(MAPS, a_map("a", 100))
    found = await usage(server)
    assert found["kind"] == "ClusterUsage" and found["metadata"]["name"] == "team"
    assert (found["hard"], found["soft"]) == ({"objects": 1000}, {"bytes": 1 << 20})
    assert found["used"]["count/configmaps"] == 1 and found["used"]["bytes"] > 100


async def test_an_object_counts_once_whatever_is_noted_of_it(server: ApiServer) -> None:
    team = server.client("team")
    before = (await usage(server))["used"]["objects"]
    made = await team.post(MAPS, a_map("owner"))
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": made["metadata"]["uid"]}
    owned = a_map("owned")
    owned["metadata"]["ownerReferences"] = [owner]
    await team.post(MAPS, owned)
    assert (await usage(server))["used"]["objects"] == before + 2


async def test_what_is_over_a_soft_limit_is_done_with_a_warning(server: ApiServer) -> None:
    await limit(server, None, {"count/configmaps": 0, "count/secrets": 0, "bytes": "1Gi"})
    response = await server.client("team").request("POST", MAPS, None, orjson.dumps(a_map("a")))
    assert response.status == 201
    assert [value for name, value in response.headers if name == "Warning"] == [
        '299 - "team is over its soft quota: used: count/configmaps=1, limited: count/configmaps=0"'
    ]


# Rates.


def rates(now: Any, **hard: int) -> Rates:
    return Rates(Quotas(lambda _id: Quota(hard, {})), now)


def test_requests_of_a_second_are_let_through_and_then_as_many_as_come_free() -> None:
    clock = Turned()
    some = rates(clock.monotonic, requestsPerSecond=3)
    for _ in range(3):
        some.admit("id", "team", "get")
    with pytest.raises(ApiError) as caught:
        some.admit("id", "team", "get")
    assert caught.value.code == 429 and "limited: requestsPerSecond=3" in caught.value.message
    some.admit("other", "other", "get")


def test_reads_are_no_writes() -> None:
    some = rates(Turned().monotonic, writesPerSecond=1)
    some.admit("id", "team", "create")
    some.admit("id", "team", "get")
    with pytest.raises(ApiError):
        some.admit("id", "team", "delete")


def test_a_watch_that_ends_makes_room_for_another() -> None:
    some = rates(Turned().monotonic, watches=1)
    leave = some.admit("id", "team", "watch")
    assert leave is not None and some.watches("id") == 1
    with pytest.raises(ApiError, match="watches=1"):
        some.admit("id", "team", "watch")
    leave()
    assert some.watches("id") == 0 and some.admit("id", "team", "watch")


def test_who_is_over_a_rate_is_told_when_the_next_comes_free_and_which_limit_it_was() -> None:
    for quota, retry_after in (({"writesPerSecond": 100}, "1"), ({"requestsPerSecond": 0}, "60")):
        some = rates(Turned().monotonic, **quota)
        with pytest.raises(ApiError) as caught:
            for _ in range(101):
                some.admit("id", "team", "create")
        [limit] = quota
        assert caught.value.headers["Retry-After"] == retry_after
        assert caught.value.details is not None
        assert caught.value.details["causes"][0]["field"] == limit
        assert some.refused[limit] == 1


def test_leader_election_goes_on_where_others_have_used_the_rate_up() -> None:
    clock = Turned()
    some = rates(clock.monotonic, requestsPerSecond=1)
    some.admit("id", "team", "get")
    for _ in range(LEASES_PER_S):
        some.admit("id", "team", "update", leads=True)
    with pytest.raises(ApiError, match="requestsPerSecond"):
        some.admit("id", "team", "update", leads=True)
    clock.turn(timedelta(seconds=0.5))
    some.admit("id", "team", "update", leads=True)
    with pytest.raises(ApiError, match="requestsPerSecond"):
        some.admit("id", "team", "get")


@pytest.mark.parametrize("quota", ["requestsPerSecond", "writesPerSecond"])
def test_where_nothing_may_be_done_nobody_is_elected_either(quota: str) -> None:
    with pytest.raises(ApiError, match=f"{quota}=0"):
        rates(Turned().monotonic, **{quota: 0}).admit("id", "team", "update", leads=True)


async def test_a_tenant_over_its_rate_is_told_so_and_the_platform_is_not(server: ApiServer) -> None:
    made = await server.clusters.get("team")
    await limit(server, {"requestsPerSecond": 0})
    tenant = server.client("team", User("owner", (MASTERS,), realm=made.id))
    error = await refused(tenant.get(MAPS))
    assert error.code == 429 and "exceeded quota: team" in error.message
    await server.client("team").get(MAPS)


# Values.


def test_a_quota_is_read_from_a_flag() -> None:
    quota = parse_quota("objects=1k,bytes=1Gi,soft.objects=800")
    assert (quota.hard, quota.soft) == ({"objects": 1000, "bytes": 1 << 30}, {"objects": 800})
    for wrong in ("objects", "pods=1", "soft.watches=1", "objects=x"):
        with pytest.raises(ValueError, match=r"objects|none of|hard limit|quantities"):
            parse_quota(wrong)


def test_clusters_that_say_the_same_share_one_quota() -> None:
    spec = {"quota": {"hard": {"objects": 5}}}
    assert quota_of(spec) is quota_of({"quota": {"hard": {"objects": 5}}})
    assert quota_of({}) is None


def test_limits_are_on_the_clusters_own_keys() -> None:
    figures = {"objects": 1, "count/deployments.apps": 2, "namespaces": 3, "watches": 4}
    found = [(name, limit.prefix, limit.what, limit.most) for name, limit in limits_of(figures, "id")]
    assert found == [
        ("objects", "id/", Measure.OBJECTS, 1),
        ("count/deployments.apps", "id/apps/deployments/", Measure.OBJECTS, 2),
        ("namespaces", "id/core/namespaces/", Measure.OBJECTS, 3),
    ]
