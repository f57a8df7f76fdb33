"""Suspended, read-only and protected logical clusters, through whole servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.storage import memory
from clusterling.storage.store import Store
from tests.tenancy.clocks import Turned
from tests.tenancy.test_clustertokens import PATIENCE_S, Served

MAPS = "/api/v1/namespaces/default/configmaps"
TEAM = f"{LOGICAL_CLUSTERS}/team"
MERGE: Final = "application/merge-patch+json"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with memory.open() as store, running(store) as server:
        await server.clusters.create("team")
        yield server


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[ApiServer]:
    server = ApiServer(store, external_url="https://127.0.0.1:1")
    async with server.running():
        yield server


def a_map(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


async def turn(server: ApiServer, **spec: object) -> Object:
    return await server.client("root").patch(TEAM, {"spec": spec}, content_type=MERGE)


async def refused(work: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value


async def test_a_suspended_cluster_refuses_all_with_503_ends_its_watches_and_keeps_its_data(
    server: ApiServer,
) -> None:
    team = server.client("team")
    made = await team.post(MAPS, a_map("a"))
    async with team.watching(MAPS, resourceVersion=made["metadata"]["resourceVersion"]) as events:
        shown = await turn(server, suspended=True)
        async with asyncio.timeout(PATIENCE_S):
            assert [event async for event in events] == []
    assert shown["status"]["phase"] == "Suspended"
    (condition,) = shown["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "Suspended")
    for work in (team.get(MAPS), team.post(MAPS, a_map("b")), team.get("/api"), team.delete(f"{MAPS}/a")):
        error = await refused(work)
        assert (error.code, error.reason) == (503, "ServiceUnavailable")
        assert error.message == 'logical cluster "team" is suspended'
        assert "Retry-After" not in error.headers
    shown = await turn(server, suspended=False)
    assert shown["status"]["phase"] == "Ready"
    assert [one["metadata"]["name"] for one in (await team.get(MAPS))["items"]][:1] == ["a"]
    await team.post(MAPS, a_map("b"))


async def test_suspension_is_told_only_to_who_may_come_in(server: ApiServer) -> None:
    token = (await server.clusters.kubeconfig("team"))["users"][0]["user"]["token"]
    await server.clusters.create("other")
    theirs = (await server.clusters.kubeconfig("other"))["users"][0]["user"]["token"]
    await turn(server, suspended=True)
    asked = Served(server, None, Turned())
    assert (await asked.ask(token)).status == 503
    assert (await asked.ask(theirs)).status == 401
    assert (await asked.ask("nobodys")).status == 401
    assert (await asked.ask(token, path="/version")).status in (200, 503)


async def test_a_read_only_cluster_refuses_writes_and_dry_runs_and_its_watches_go_on(
    server: ApiServer,
) -> None:
    team = server.client("team")
    made = await team.post(MAPS, a_map("a"))
    async with team.watching(MAPS, resourceVersion=made["metadata"]["resourceVersion"]) as events:
        assert (await turn(server, access="ReadOnly"))["status"]["phase"] == "ReadOnly"
        for work in (
            team.post(MAPS, a_map("b")),
            team.post(MAPS, a_map("b"), dryRun="All"),
            team.put(f"{MAPS}/a", made),
            team.patch(f"{MAPS}/a", {"data": {"x": "1"}}, content_type=MERGE),
            team.delete(f"{MAPS}/a"),
            team.delete(MAPS),
            team.post("/api/v1/namespaces/default/serviceaccounts/default/token", {}),
        ):
            error = await refused(work)
            assert (error.code, error.reason) == (403, "Forbidden")
            assert "is read-only" in error.message
        assert (await team.get(f"{MAPS}/a"))["metadata"]["uid"] == made["metadata"]["uid"]
        await turn(server, access="ReadWrite")
        await team.post(MAPS, a_map("b"))
        async with asyncio.timeout(PATIENCE_S):
            event = await anext(events)
        assert event["object"]["metadata"]["name"] == "b"


async def test_who_may_what_can_still_be_asked_of_a_read_only_cluster(server: ApiServer) -> None:
    spec = {"packs": ["all"], "access": "ReadOnly"}
    await server.clusters.create("asked", spec)
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}},
    }
    answer = await server.client("asked").post(
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review
    )
    assert answer["status"]["allowed"] is True


async def test_controllers_go_on_where_they_paused_once_a_cluster_may_be_written_again(
    server: ApiServer,
) -> None:
    team = server.client("team")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}}
    await team.post("/api/v1/namespaces", namespace)
    held = {**a_map("held"), "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    await team.post("/api/v1/namespaces/gone/configmaps", held)
    await team.delete("/api/v1/namespaces/gone")
    await team.patch(
        "/api/v1/namespaces/gone/configmaps/held", {"metadata": {"finalizers": None}}, content_type=MERGE
    )
    await turn(server, access="ReadOnly")
    before = await team.get("/api/v1/namespaces")
    await asyncio.sleep(0.2)
    assert await team.get("/api/v1/namespaces") == before
    await turn(server, access="ReadWrite")
    async with asyncio.timeout(PATIENCE_S):
        while any(
            one["metadata"]["name"] == "gone" for one in (await team.get("/api/v1/namespaces"))["items"]
        ):
            await asyncio.sleep(0.05)


async def test_a_suspended_cluster_can_be_deleted(server: ApiServer) -> None:
    await turn(server, suspended=True)
    await server.clusters.delete("team")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await server.clusters.get("team")
            except ApiError as error:
                assert error.code == 404
                break
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("spec", [{"suspended": True}, {"access": "ReadOnly"}])
async def test_a_cluster_may_begin_closed(server: ApiServer, spec: Object) -> None:
    await server.clusters.create("closed", spec)
    closed = server.client("closed")
    assert (await refused(closed.post(MAPS, a_map("a")))).code in (403, 503)
    await server.client("root").patch(
        f"{LOGICAL_CLUSTERS}/closed", {"spec": dict.fromkeys(spec)}, content_type=MERGE
    )
    await closed.post(MAPS, a_map("a"))


async def test_root_stays_open(server: ApiServer) -> None:
    for spec in ({"suspended": True}, {"access": "ReadOnly"}, {"deletionProtection": True}):
        work = server.client("root").patch(f"{LOGICAL_CLUSTERS}/root", {"spec": spec}, content_type=MERGE)
        assert (await refused(work)).code == 422


async def test_a_protected_cluster_is_deleted_by_no_one_until_the_protection_is_lifted(
    server: ApiServer,
) -> None:
    root = server.client("root")
    await turn(server, deletionProtection=True)
    for work in (
        server.clusters.delete("team"),
        root.delete(LOGICAL_CLUSTERS, fieldSelector="metadata.name=team"),
        root.delete(TEAM, dryRun="All"),
    ):
        error = await refused(work)
        assert error.code == 403
        assert "set spec.deletionProtection to false first" in error.message
    await server.client("team").post(MAPS, a_map("a"))
    await turn(server, deletionProtection=False)
    await server.clusters.delete("team")
