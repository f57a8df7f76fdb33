"""A request asks the store once, before it believes anything, and is answered anew where its ground has moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from typing_extensions import override

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.registry.admission import Admission, Operation
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context
from clusterling.server import ApiServer
from clusterling.services import barrier
from clusterling.services.client import Client
from clusterling.storage import memory
from clusterling.storage.store import Store
from tests.controllers.conftest import config_map
from tests.replicas.test_two_replicas import CRDS, MAPS, WIDGETS, widget, widget_crd
from tests.storage.trouble import Troubled


class Counted(Troubled):
    """Counts how often it is asked how far it has come."""

    asked = 0

    @override
    async def fresh(self) -> int:
        self.asked += 1
        return await super().fresh()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with memory.open() as store:
        yield store


async def asked_by(way: Counted, request: Awaitable[object]) -> int:
    way.asked = 0
    await request
    return way.asked


async def test_each_request_asks_the_store_once(store: Store) -> None:
    way = Counted(store)
    async with ApiServer(way, run_controllers=False).running() as server:
        await server.clusters.create("team")
        team = server.client("team")
        made = await team.post(MAPS, config_map("a"))
        for _ in range(10):  # Reading loads what is read often; that asks for nothing more either.
            assert await asked_by(way, team.get(MAPS)) == 1
            assert await asked_by(way, team.get(f"{MAPS}/a")) == 1
        assert await asked_by(way, team.post(MAPS, config_map("b"))) == 1
        assert await asked_by(way, team.put(f"{MAPS}/a", made | {"data": {"x": "1"}})) == 1
        assert await asked_by(way, team.delete(f"{MAPS}/b")) == 1
        assert await asked_by(way, server.clusters.list()) == 1


async def test_a_process_alone_with_its_store_asks_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Counted(store)
    monkeypatch.setattr(way, "shared", False, raising=False)
    async with ApiServer(way, run_controllers=False).running() as server:
        await server.clusters.create("team")
        team = server.client("team")
        assert await asked_by(way, team.post(MAPS, config_map("a"))) == 0
        assert await asked_by(way, team.get(f"{MAPS}/a")) == 0
        assert await asked_by(way, team.get(MAPS)) == 0
        assert await store.count("~controllers/") == 0


async def test_reads_of_what_is_at_hand_ask_nothing_unless_the_store_was_long_not_heard_of(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Counted(store)
    async with ApiServer(way, run_controllers=False).running() as server:
        await server.clusters.create("team")
        team = server.client("team")
        await team.post(MAPS, config_map("a"))
        await team.get(MAPS)
        at_hand = f"{MAPS}?resourceVersion=0"
        assert await asked_by(way, team.get(at_hand)) == 0
        way.cut = True
        assert "a" in [item["metadata"]["name"] for item in (await team.get(at_hand))["items"]]
        way.cut = False
        # A no is certain, whatever was asked for.
        way.asked = 0
        with pytest.raises(ApiError):
            await team.get(f"{MAPS}/none?resourceVersion=0")
        assert way.asked > 0
        monkeypatch.setattr(barrier, "AT_HAND_S", 0.0)
        assert await asked_by(way, team.get(at_hand)) == 1


class Meddling(Admission):
    """Does something once, between what a write was computed from and its commit."""

    def __init__(self) -> None:
        self.act: Callable[[], Awaitable[object]] | None = None

    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        if served.plural in ("widgets", "configmaps") and self.act is not None:
            act, self.act = self.act, None
            await act()


def with_default(crd: Object, size: int) -> Object:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["size"]["default"] = size
    return crd


@pytest.mark.parametrize("shared", [True, False])
async def test_a_write_whose_schema_changes_before_its_commit_is_done_by_the_new_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    way = Counted(store)
    monkeypatch.setattr(way, "shared", shared, raising=False)
    meddling = Meddling()
    async with ApiServer(way, admission=[meddling]).running() as server:
        await server.clusters.create("team")
        team = server.client("team")
        await team.post(CRDS, widget_crd("widgets", "Widget"))

        async def change(size: int) -> None:
            current = await team.get(f"{CRDS}/widgets.example.com")
            await team.put(f"{CRDS}/widgets.example.com", with_default(current, size))

        meddling.act = lambda: change(7)
        made = await team.post(WIDGETS, widget("a"))
        assert made["spec"] == {"size": 7}
        meddling.act = lambda: change(8)
        made["metadata"]["labels"] = {"a": "b"}
        changed = await team.put(f"{WIDGETS}/a", made | {"spec": {}})
        assert changed["spec"] == {"size": 8}


async def test_a_write_whose_cluster_goes_before_its_commit_is_refused_as_where_there_is_none(
    store: Store,
) -> None:
    meddling = Meddling()
    async with ApiServer(store, admission=[meddling]).running() as server:
        await server.clusters.create("team")
        team: Client = server.client("team")
        meddling.act = lambda: server.clusters.delete("team")
        with pytest.raises(ApiError) as caught:
            await team.post(MAPS, config_map("a"))
        assert caught.value.code == 403


async def test_writes_go_through_while_another_changes_their_schema_again_and_again(store: Store) -> None:
    async with ApiServer(store).running() as server:
        await server.clusters.create("team")
        team = server.client("team")
        crd = await team.post(CRDS, widget_crd("widgets", "Widget"))
        done = asyncio.Event()

        async def change() -> None:
            nonlocal crd
            for size in range(2, 40):
                crd = await team.put(f"{CRDS}/widgets.example.com", with_default(crd, size))
                await asyncio.sleep(0.01)
            done.set()

        async def write(number: int) -> None:
            count = 0
            while not done.is_set():
                await team.post(WIDGETS, widget(f"w{number}-{count}"))
                count += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(change())
            for number in range(4):
                group.create_task(write(number))
