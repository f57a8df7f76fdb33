"""Logical clusters with a `ttl`: whole servers over one store, by a clock that is turned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import pytest

from clusterling.controllers import lifetimes
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.storage import memory
from clusterling.storage.store import Store
from clusterling.tenancy.lifetimes import RENEWED, ttl_s
from tests.tenancy.clocks import Turned
from tests.tenancy.test_access import refused
from tests.tenancy.test_clustertokens import Served

MERGE: Final = "application/merge-patch+json"
EVENTS: Final = "/api/v1/namespaces/default/events"
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetimes, "EVERY_S", 0.01)


class World:
    def __init__(self, store: Store) -> None:
        self.clock = Turned()
        self._store = store

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ApiServer]:
        server = ApiServer(self._store, clock=self.clock, external_url="https://127.0.0.1:1")
        async with server.running():
            yield server

    def turn(self, **by: int) -> None:
        self.clock.turn(timedelta(**by))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with memory.open() as store:
        yield World(store)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.01)


async def is_gone(server: ApiServer, name: str = "brief") -> bool:
    try:
        await server.clusters.get(name)
    except ApiError as error:
        assert error.code == 404
        return True
    return False


async def said(server: ApiServer) -> list[str]:
    items = (await server.client("root").get(EVENTS))["items"]
    return [one["reason"] for one in items if one["involvedObject"]["name"] == "brief"]


async def change(server: ApiServer, spec: Object | None = None, renewed: str = "") -> Object:
    annotations = {RENEWED: renewed} if renewed else {}
    body: Object = {"spec": spec or {}, "metadata": {"annotations": annotations}}
    return await server.client("root").patch(f"{LOGICAL_CLUSTERS}/brief", body, content_type=MERGE)


async def shown(server: ApiServer) -> Object:
    return await server.client("root").get(f"{LOGICAL_CLUSTERS}/brief")


async def test_a_cluster_is_deleted_when_its_time_is_over_and_others_are_not(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("brief", {"ttl": "1h"})
        await server.clusters.create("long", {"ttl": "2h"})
        await server.clusters.create("endless")
        assert (await shown(server))["status"]["expiresAt"] == "2026-03-01T13:00:00Z"
        world.turn(minutes=61)
        await until(lambda: is_gone(server))
        assert "Expired" in await said(server)
        assert not await is_gone(server, "long")
        assert not await is_gone(server, "endless")


async def test_whoever_uses_it_is_warned_in_the_last_part_of_its_life(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("brief", {"ttl": "1h"})
        token = (await server.clusters.kubeconfig("brief"))["users"][0]["user"]["token"]
        users = Served(server, None, world.clock)

        async def warnings() -> list[str]:
            answer = await users.ask(token, cluster="brief")
            assert answer.status == 200
            return [value for name, value in answer.headers if name == "Warning"]

        assert await warnings() == []
        world.turn(minutes=50)
        assert await warnings() == [
            '299 - "logical cluster \\"brief\\" is deleted at 2026-03-01T13:00:00Z unless it is renewed"'
        ]

        async def is_told() -> bool:
            return any(one["type"] == "Expiring" for one in (await shown(server))["status"]["conditions"])

        await until(is_told)
        assert await said(server) == ["Expiring"]
        await change(server, renewed="now")
        assert await warnings() == []
        assert not await is_told()


async def test_a_renewal_counts_anew_and_so_does_another_ttl(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("brief", {"ttl": "1h"})
        world.turn(minutes=59)
        renewed = await change(server, renewed="1")
        assert renewed["status"]["expiresAt"] == "2026-03-01T13:59:00Z"
        world.turn(minutes=30)
        unmoved = await change(server, {"displayName": "B"})
        assert unmoved["status"]["expiresAt"] == "2026-03-01T13:59:00Z"
        longer = await change(server, {"ttl": "3h"})
        assert longer["status"]["expiresAt"] == "2026-03-01T16:29:00Z"
        shorter = await change(server, {"ttl": "10m"})
        assert shorter["status"]["expiresAt"] == "2026-03-01T13:39:00Z"
        world.turn(minutes=11)
        await until(lambda: is_gone(server))


async def test_without_a_ttl_any_more_a_cluster_stays(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("brief", {"ttl": "1h"})
        assert "expiresAt" not in (await change(server, {"ttl": None}))["status"]
        world.turn(hours=2)
        await server.clusters.create("next", {"ttl": "10s"})
        world.turn(hours=2)
        await until(lambda: is_gone(server, "next"))
        assert not await is_gone(server)


async def test_what_ended_while_no_server_ran_is_deleted_at_the_next_start(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("brief", {"ttl": "1h"})
    world.turn(hours=3)
    async with world.serving() as server:
        await until(lambda: is_gone(server))


async def test_a_protected_cluster_outlives_its_time_and_that_is_told(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("brief", {"ttl": "1h", "deletionProtection": True})
        world.turn(hours=2)

        async def is_told() -> bool:
            return "DeletionProtected" in await said(server)

        await until(is_told)
        assert not await is_gone(server)
        await change(server, {"deletionProtection": None})
        world.turn(hours=1)
        await until(lambda: is_gone(server))


async def test_nobody_writes_when_a_cluster_ends_but_by_its_ttl(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("brief", {"ttl": "1h"})
        body = {"status": {"expiresAt": "2099-01-01T00:00:00Z", "phase": "Fine"}}
        path = f"{LOGICAL_CLUSTERS}/brief/status"
        answer = await server.client("root").patch(path, body, content_type=MERGE)
        assert answer["status"]["expiresAt"] == "2026-03-01T13:00:00Z"
        assert answer["status"]["phase"] == "Ready"


async def test_a_cluster_that_waits_for_its_end_takes_one_place_however_often_it_is_renewed(
    world: World,
) -> None:
    async with world.serving() as server:
        index = lifetimes.Lifetimes(server._directory, server.pool, world.clock)
        task = asyncio.create_task(index.run())
        try:
            await asyncio.sleep(0)
            for number in range(20):
                await server.clusters.create(f"c{number}", {"ttl": "1h"})
            await server.clusters.create("brief", {"ttl": "1h"})
            for number in range(30):
                await change(server, renewed=str(number))
            assert len(index) == 21
            await server.clusters.delete("brief")
            assert len(index) == 20
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize("ttl", ["", "9s", "1d", "-2h", "1.5h", "9999999h", "2h 3m", "x" * 40, 5])
async def test_what_is_no_ttl_is_refused(world: World, ttl: object) -> None:
    async with world.serving() as server:
        assert (await refused(server.clusters.create("brief", {"ttl": ttl}))).code in (400, 422)


async def test_what_is_no_spec_is_refused(world: World) -> None:
    async with world.serving() as server:
        root = server.client("root")
        wrong: tuple[object, ...] = (5, [], "x")
        for spec in wrong:
            body = {
                "apiVersion": "tenancy.clusterling.io/v1alpha1",
                "kind": "LogicalCluster",
                "metadata": {"name": "brief"},
                "spec": spec,
            }
            assert (await refused(root.post(LOGICAL_CLUSTERS, body))).code in (400, 422)


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1h30m", 5400), ("90m", 5400), ("2h0m5s", 7205)])
def test_a_ttl_is_read_as_go_reads_it(text: str, seconds: int) -> None:
    assert ttl_s(text) == seconds


async def test_a_lifetime_of_more_than_ten_years_is_refused() -> None:
    async with memory.open() as store, ApiServer(store).running() as server:
        await server.clusters.create("longest", {"ttl": "87840h"})
        with pytest.raises(ApiError) as caught:
            await server.clusters.create("longer", {"ttl": "87841h"})
        assert caught.value.code == 422 and "must be from 10s to 87840h" in caught.value.message
