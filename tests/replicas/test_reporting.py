"""What the status of a logical cluster tells of its use where several replicas serve it: two in this process, over one store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from clusterling.controllers import reporting
from clusterling.machinery.meta import Object
from clusterling.registry.strategy import User
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.storage.opening import open_store
from clusterling.tenancy.authorization import MASTERS
from tests.replicas.stores import SharedStore
from tests.replicas.stores import store as shared

store = shared  # A fixture.

MAPS = "/api/v1/namespaces/default/configmaps"
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    # By the machine's clock: a lease must not end each time that one is turned.
    monkeypatch.setattr(reporting, "TICK_S", 0.02)
    monkeypatch.setattr(reporting, "BEGIN_S", 0.0)
    monkeypatch.setattr(reporting, "FIRST_S", 0.1)
    monkeypatch.setattr(reporting, "EVERY_S", 0.5)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def replica(url: str) -> AsyncIterator[ApiServer]:
    async with open_store(url) as opened:
        server = ApiServer(opened, external_url="https://127.0.0.1:1")
        async with server.running():
            yield server


async def leads(server: ApiServer) -> None:
    async def has_been_elected() -> bool:
        return not server._controllers()

    await until(has_been_elected)


async def status(server: ApiServer) -> Object:
    found: Object = (await server.client("root").get(f"{LOGICAL_CLUSTERS}/team"))["status"]
    return found


async def count(server: ApiServer) -> int:
    usage = await server.client("root").get(f"{LOGICAL_CLUSTERS}/team/usage")
    return int(usage["used"]["objects"])


async def test_activity_is_told_by_whoever_served_and_what_is_kept_by_the_leader_and_its_successor(
    store: SharedStore,
) -> None:
    async with AsyncExitStack() as stack:
        leader = AsyncExitStack()
        first = await leader.enter_async_context(replica(store.url()))
        stack.push_async_callback(leader.aclose)
        await leads(first)
        second = await stack.enter_async_context(replica(store.url()))
        made = await first.clusters.create("team")
        user = second.client("team", User("dev", (MASTERS,), realm=made.id))
        await user.post(MAPS, {"metadata": {"name": "a"}})

        async def is_told() -> bool:
            found = await status(second)
            return "lastActivity" in found and found.get("objectCount") == await count(second)

        await until(is_told)
        before = await status(second)
        await user.post(MAPS, {"metadata": {"name": "b"}})
        await leader.aclose()

        async def is_told_by_the_successor() -> bool:
            return bool((await status(second)).get("objectCount") == before["objectCount"] + 1)

        await until(is_told_by_the_successor)
