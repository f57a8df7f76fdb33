"""What the status of a logical cluster tells of its use: whole servers over one store, by a clock that is turned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import pytest

from clusterling.controllers import history, reporting
from clusterling.machinery.meta import Object
from clusterling.registry.strategy import User
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory
from clusterling.storage.store import Store
from clusterling.tenancy.authorization import MASTERS
from clusterling.tenancy.quota import NO_QUOTA, Quota, parse_quota
from clusterling.tenancy.reports import shown_bytes
from tests.tenancy.clocks import Turned

MERGE: Final = "application/merge-patch+json"
MAPS: Final = "/api/v1/namespaces/default/configmaps"
PATIENCE_S = 30.0
FIRST: Final = int(reporting.FIRST_S) + 1
EVERY: Final = int(reporting.EVERY_S) + 1


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "TICK_S", 0.01)
    monkeypatch.setattr(reporting, "BEGIN_S", 0.0)


class World:
    def __init__(self, store: Store) -> None:
        self.clock = Turned()
        self.store = store

    @asynccontextmanager
    async def serving(self, default: Quota = NO_QUOTA) -> AsyncIterator[ApiServer]:
        server = ApiServer(
            self.store, clock=self.clock, external_url="https://127.0.0.1:1", default_quota=default
        )
        async with server.running():
            yield server

    def turn(self, seconds: int) -> None:
        self.clock.turn(timedelta(seconds=seconds))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with memory.open() as store:
        yield World(store)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.01)


async def shown(server: ApiServer, name: str = "team") -> Object:
    return await server.client("root").get(f"{LOGICAL_CLUSTERS}/{name}")


async def status(server: ApiServer, name: str = "team") -> Object:
    found: Object = (await shown(server, name))["status"]
    return found


async def told(server: ApiServer, **fields: object) -> None:
    """Returns when the status says so."""

    async def says() -> bool:
        found = await status(server)
        return all(found.get(field) == value for field, value in fields.items())

    await until(says)


async def has_passed(server: ApiServer, name: str = "marker") -> None:
    """Returns when what was due has been told: so has been what another cluster, changed last, has to tell.

    What changed before it is due before it; what is not told of when this returns was not to be told of.
    """
    before = (await status(server, name)).get("objectCount", 0)

    async def says() -> bool:
        return bool((await status(server, name)).get("objectCount", 0) != before)

    await until(says)


async def own(server: ApiServer, name: str = "team") -> Client:
    """A client of one of the cluster's own users."""
    user = User("dev", (MASTERS,), realm=(await server.clusters.get(name)).id)
    return server.client(name, user)


async def used(server: ApiServer, name: str = "team") -> Object:
    found: Object = (await server.client("root").get(f"{LOGICAL_CLUSTERS}/{name}/usage"))["used"]
    return found


async def limit(server: ApiServer, hard: Object | None = None, soft: Object | None = None) -> None:
    spec = {"quota": {"hard": hard, "soft": soft}}
    await server.client("root").patch(f"{LOGICAL_CLUSTERS}/team", {"spec": spec}, content_type=MERGE)


def condition(found: Object) -> tuple[str, str, str] | None:
    for one in found["conditions"]:
        if one["type"] == "QuotaExceeded":
            return one["status"], one["reason"], one["message"]
    return None


def a_map(name: str, size: int = 0) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"of": "x" * size}}


async def test_what_a_cluster_keeps_is_told_half_a_minute_after_it_changes(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("team")
        for number in range(3):
            await server.client("team").post(MAPS, a_map(f"m{number}", 1000))
        assert "objectCount" not in await status(server)
        world.turn(FIRST)
        has = await used(server)
        await told(server, objectCount=has["objects"], storageBytes=has["bytes"])
        assert has["objects"] >= 3 and has["bytes"] > 3000
        assert "quota" not in await status(server)


async def test_however_much_changes_it_is_told_once_in_four_minutes(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("team")
        await server.clusters.create("marker")
        await server.client("team").post(MAPS, a_map("m"))
        world.turn(FIRST)
        await told(server, objectCount=(await used(server))["objects"])
        before = await shown(server)
        for number in range(20):
            await server.client("team").post(MAPS, a_map(f"m{number}"))
            world.turn(9)
        await server.client("marker").post(MAPS, a_map("m"))
        world.turn(FIRST)
        await has_passed(server)
        assert await shown(server) == before
        world.turn(EVERY)
        await told(server, objectCount=(await used(server))["objects"])


async def test_a_deletion_after_which_nothing_happens_is_told_as_well(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("team")
        await server.client("team").post(MAPS, a_map("m", 5000))
        world.turn(FIRST)
        await told(server, objectCount=(await used(server))["objects"])
        most = (await status(server))["storageBytes"]
        await server.client("team").delete(f"{MAPS}/m")
        world.turn(EVERY)
        await told(server, objectCount=(await used(server))["objects"])
        assert (await status(server))["storageBytes"] < most - 5000


async def test_activity_is_what_its_own_users_ask_for_if_only_to_read(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("team")
        await server.clusters.create("marker")
        await server.client("team").get(MAPS)
        await server.client("marker").post(MAPS, a_map("m"))
        world.turn(FIRST)
        await has_passed(server)
        assert "lastActivity" not in await status(server)
        await (await own(server)).get(MAPS)

        async def is_noted() -> bool:
            world.turn(1)
            return "lastActivity" in await status(server)

        await until(is_noted)
        first = await status(server)
        assert "objectCount" not in first
        world.turn(EVERY)
        await (await own(server)).get(MAPS)

        async def is_later() -> bool:
            world.turn(1)
            return bool((await status(server))["lastActivity"] > first["lastActivity"])

        await until(is_later)


async def test_clusters_that_nobody_uses_cost_nothing(world: World) -> None:
    async with world.serving() as server:
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(server.clusters.create(f"idle-{number}"))
        await server.clusters.create("marker")
        assert len(server._reporting) == 0
        async with world.store.watch("", after=world.store.head()) as watch:
            await server.client("marker").post(MAPS, a_map("m"))
            for _ in range(5):
                world.turn(EVERY)
            await has_passed(server)
            written: set[str] = set()
            while (batch := watch.take()) is not None:
                written.update(event.key for event in batch.events)
        objects = {key for key in written if not key.startswith("~")}
        assert objects <= {
            key for key in objects if key.endswith("/logicalclusters/-/marker") or "/configmaps/" in key
        }
        assert len(server._reporting) == 0


async def test_limits_that_are_reached_are_told_and_why(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("team")
        await limit(server, {"count/configmaps": 2, "requestsPerSecond": 500}, {"bytes": "1Mi"})
        client = server.client("team")
        await client.post(MAPS, a_map("a"))
        world.turn(FIRST)
        await told(
            server,
            quota={
                "hard": {"count/configmaps": 2},
                "soft": {"bytes": 1 << 20},
                "used": {
                    "bytes": (await used(server))["bytes"],
                    "count/configmaps": (await used(server))["count/configmaps"],
                },
            },
        )
        assert condition(await status(server)) == (
            "False",
            "WithinLimits",
            "less is used than every limit",
        )
        await client.post(MAPS, a_map("b"))
        world.turn(EVERY)
        await until(lambda: _is(server, ("True", "HardLimitReached", "count/configmaps: 2 of 2")))
        at = (await status(server))["conditions"][-1]["lastTransitionTime"]
        await limit(server, {"count/configmaps": 3}, {"count/configmaps": 1})
        world.turn(EVERY)
        await until(lambda: _is(server, ("True", "SoftLimitExceeded", "count/configmaps: 2 of 1")))
        assert (await status(server))["conditions"][-1]["lastTransitionTime"] == at
        patch = {"spec": {"quota": None}}
        await server.client("root").patch(f"{LOGICAL_CLUSTERS}/team", patch, content_type=MERGE)
        world.turn(EVERY)
        await until(lambda: _is(server, None))
        assert "quota" not in await status(server)


async def _is(server: ApiServer, expected: tuple[str, str, str] | None) -> bool:
    return condition(await status(server)) == expected


async def test_limits_that_the_server_has_for_all_are_told_as_well(world: World) -> None:
    async with world.serving(parse_quota("objects=1,soft.bytes=1")) as server:
        await server.clusters.create("team")
        await server.client("team").post(MAPS, a_map("a"))
        world.turn(FIRST)
        await until(lambda: _is(server, ("True", "HardLimitReached", "objects: 1 of 1")))


async def test_what_changed_before_a_restart_is_told_after_it(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("team")
        await server.client("team").post(MAPS, a_map("a"))
        has = await used(server)
    async with world.serving() as server:
        assert "objectCount" not in await status(server)

        async def is_told() -> bool:
            world.turn(1)
            return bool((await status(server)).get("objectCount") == has["objects"])

        await until(is_told)


async def test_where_history_is_gone_all_are_looked_at(world: World) -> None:
    async with world.serving() as server:
        for name in ("team", "other"):
            await server.clusters.create(name)
            await server.client(name).post(MAPS, a_map("a"))
    await world.store.compact(world.store.head())
    async with world.serving() as server:
        before = world.store.head()

        async def is_told() -> bool:
            world.turn(1)
            return (
                (await status(server)).get("objectCount")
                == (await status(server, "other")).get("objectCount")
                == 1
            )

        await until(is_told)
        # Those that have nothing to tell cost a look, and no write.
        assert "objectCount" not in await status(server, "root")
        assert world.store.head() - before < 10


async def test_who_takes_over_begins_where_the_last_minutes_of_history_begin(world: World) -> None:
    assert await history.revision_before(world.store, 60) == 0
    noted = []
    for _ in range(5):
        world.turn(30)
        noted.append(await history._note(world.store, round(world.clock.now().timestamp())))
    # The last was 30 s after the one before it, which noted the head at that time.
    assert await history.revision_before(world.store, 60) == noted[1]
    assert await history.revision_before(world.store, 1000) == 0


async def test_it_is_told_of_a_cluster_that_is_suspended_and_not_of_one_that_goes(world: World) -> None:
    async with world.serving() as server:
        await server.clusters.create("team")
        await server.client("team").post(MAPS, a_map("a"))
        patch = {"spec": {"suspended": True}}
        await server.client("root").patch(f"{LOGICAL_CLUSTERS}/team", patch, content_type=MERGE)
        world.turn(FIRST)
        await told(server, objectCount=(await used(server))["objects"], phase="Suspended")
        await server.clusters.delete("team")
        world.turn(EVERY)

        async def is_forgotten() -> bool:
            return len(server._reporting) == 0

        await until(is_forgotten)


async def test_of_many_clusters_that_are_deleted_nothing_waits_for_a_time_that_is_still_to_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "SPARE", 4)
    async with world.serving() as server:
        told_of = [f"told-{number}" for number in range(8)]
        changed = [f"changed-{number}" for number in range(8)]
        for name in (*told_of, "stays"):
            await server.clusters.create(name)
            await server.client(name).post(MAPS, a_map("a"))

        async def are_told() -> bool:
            return len(server._reporting) == 0

        world.turn(FIRST)
        await until(are_told)
        for name in (*changed, "stays"):
            if name != "stays":
                await server.clusters.create(name)
            await server.client(name).post(MAPS, a_map("b"))

        async def are_marked() -> bool:
            return len(server._reporting) == len(changed) + 1

        await until(are_marked)
        for name in (*told_of, *changed):
            await server.clusters.delete(name)

        async def one_is_left() -> bool:
            return len(server._reporting) == 1

        await until(one_is_left)
        assert len(server._reporting._heap) <= 2 + reporting.SPARE
        assert len(server._reporting._telling) <= 2 + reporting.SPARE


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (812, "812"), (1024, "1.0Ki"), (1536, "1.5Ki"), (10240, "10Ki"), (20 << 20, "20Mi")],
)
def test_bytes_are_shown_as_people_read_them(count: int, text: str) -> None:
    assert shown_bytes(count) == text
