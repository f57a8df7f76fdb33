"""What follows the store outlives its absence: whatever is refused, whenever, it goes on when the store does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import orjson
import pytest
from typing_extensions import override

from clusterling.controllers.runtime import Runtime
from clusterling.machinery.errors import ApiError
from clusterling.machinery.names import ClusterName
from clusterling.server import ApiServer, SystemClock
from clusterling.storage import backed, backoff, memory
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import (
    Compacted,
    Guard,
    Limit,
    Op,
    StorageError,
    Store,
    Unavailable,
    UnknownOutcome,
)
from clusterling.tenancy.authentication.tokens import IssuedTokens, token_hash
from clusterling.tenancy.directory import Directory, key_of
from clusterling.tenancy.names import ROOT_ID
from tests.controllers.conftest import PATIENCE_S, config_map
from tests.controllers.test_runtime import Recorder
from tests.storage.trouble import GappedBackend, Troubled

TROUBLES: list[StorageError] = [
    Unavailable("away"),
    Compacted(1),
    UnknownOutcome("away"),
    Unavailable("away"),
]
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "MAX_S", 0.05)


@pytest.fixture
async def backend() -> GappedBackend:
    return GappedBackend()


@pytest.fixture
async def store(backend: GappedBackend) -> AsyncIterator[Store]:
    async with backed.serve(backend) as store:
        yield store


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def background(task: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
        assert not task.done(), "it runs until it is cancelled"
    finally:
        task.cancel()
        await asyncio.wait({task})


def cluster(name: str, cluster_id: str) -> bytes:
    return orjson.dumps(
        {"metadata": {"name": name, "uid": f"uid-{cluster_id}"}, "status": {"id": cluster_id}}
    )


async def test_a_directory_starts_and_goes_on_whatever_the_store_refuses(
    store: Store, backend: GappedBackend
) -> None:
    way = Troubled(Keyspace(store, ROOT_ID))
    way.fail(TROUBLES)
    directory = Directory(way)
    await way._store.write([Op(key_of("a"), cluster("a", "ida"))])
    async with background(asyncio.create_task(directory.run())):
        await asyncio.wait_for(directory.ready(), PATIENCE_S)
        for number in range(3):
            way.fail(TROUBLES)
            backend.gap()
            assert not directory.is_current
            await until(lambda: directory.is_current)
            name = f"b{number}"
            await way._store.write([Op(key_of(name), cluster(name, f"id{number}"))])
            assert directory.known(name) is not None


async def test_a_directory_that_does_not_hear_asks_and_says_nothing_from_memory(
    store: Store, backend: GappedBackend
) -> None:
    way = Troubled(Keyspace(store, ROOT_ID))
    directory = Directory(way)
    [revision] = await way._store.write([Op(key_of("a"), cluster("a", "old"))])
    async with background(asyncio.create_task(directory.run())):
        await asyncio.wait_for(directory.ready(), PATIENCE_S)
        way.cut = True
        backend.gap()
        with pytest.raises(Unavailable):
            await directory.find(ClusterName.parse("a"))
        await way._store.write([Op(key_of("a"), None, revision)])
        way.cut = False
        assert await directory.find(ClusterName.parse("a")) is None
        await way._store.write([Op(key_of("a"), cluster("a", "new"))])
        found = await directory.find(ClusterName.parse("a"))
        assert found is not None and found.id == "new"
        await until(lambda: directory.is_current)
        assert directory.by_id("old") is None


async def test_tokens_are_asked_for_while_nothing_is_heard_of_revocations(
    store: Store, backend: GappedBackend
) -> None:
    way = Troubled(store)
    way.fail(TROUBLES)
    tokens = IssuedTokens(way, SystemClock())
    async with background(asyncio.create_task(tokens.run())):
        await until(lambda: not way.errors)
        token = await tokens.issue(ROOT_ID, "user", ())
        for _ in range(3):
            await until(lambda: way.calls > 0)
            assert await tokens.find(token_hash(token), (ROOT_ID,)) is not None
            way.cut = True
            backend.gap()
            with pytest.raises(Unavailable):
                await tokens.find(token_hash(token), (ROOT_ID,))
            way.cut = False
            assert await tokens.find(token_hash(token), (ROOT_ID,)) is not None
        way.cut = True
        backend.gap()
        await store.drop("~tokens/")
        way.cut = False
        assert await tokens.find(token_hash(token), (ROOT_ID,)) is None


@pytest.mark.parametrize("refused", [1, 2, 3, 4, 5])
async def test_controllers_go_on_whatever_the_store_refuses(
    store: Store, backend: GappedBackend, refused: int
) -> None:
    way = Troubled(store)
    recorder = Recorder()
    way.fail((TROUBLES * 2)[:refused])
    await store.write([Op("a/1", b"{}")])
    async with background(asyncio.create_task(Runtime(way, (recorder,), SystemClock()).run())):
        await until(lambda: recorder.seen != [] and not way.errors)
        way.fail((TROUBLES * 2)[:refused])
        backend.gap()
        await until(lambda: recorder.walked > 0 and not way.errors)
        async with asyncio.timeout(PATIENCE_S):
            while "a/2" not in recorder.seen:  # What was written before a walk is the walk's to name.
                await store.write([Op("a/2", b"{}")])
                await asyncio.sleep(0.05)


async def test_a_run_that_begins_again_counts_nothing_done_that_an_earlier_one_left(store: Store) -> None:
    """A leader that was deposed and elected again goes on at the cursor, not where it had come itself."""
    first = Recorder(failures=1_000_000)
    runtime = Runtime(store, (first,), SystemClock())
    await store.write([Op("a/1", b"{}")])
    async with background(asyncio.create_task(runtime.run())):
        await until(lambda: first.seen != [])
    assert await store.get("~controllers/cursor/-/main") is None
    first.failures = 0
    first.seen.clear()
    async with background(asyncio.create_task(runtime.run())):
        await until(lambda: first.seen == ["a/1"])


async def test_a_server_starts_late_where_the_store_is_away_and_serves_when_it_is_back() -> None:
    async with memory.open() as store:
        way = Troubled(store)
        way.cut = True
        server = ApiServer(way)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            running = group.create_task(server.run())
            await until(lambda: way.calls > 3)
            assert not running.done()
            way.cut = False
            client = server.client("root")
            while (await client.request("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.01)
            way.cut = True
            assert (await client.request("GET", "/readyz")).status in (500, 503)
            with pytest.raises(ApiError) as caught:
                await client.get("/api/v1/namespaces")
            assert (caught.value.code, caught.value.headers) == (503, {"Retry-After": "1"})
            way.cut = False
            await server.clusters.create("team")
            await server.client("team").post(MAPS, config_map("a"))
            assert not running.done()
            running.cancel()


class Unsure(Troubled):
    """Never says what became of a write."""

    unsure = False

    @override
    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        revisions = await super().write(ops, guards, limits)
        if self.unsure:
            raise UnknownOutcome("away")
        return revisions


async def test_nobody_is_told_that_a_write_did_not_happen_of_which_that_is_not_known(store: Store) -> None:
    way = Unsure(store)
    async with ApiServer(way, run_controllers=False, external_url="https://a").running() as server:
        await server.clusters.create("team")
        way.unsure = True
        for asked in (
            server.clusters.kubeconfig("team"),
            server.client("team").post(MAPS, config_map("a")),
        ):
            with pytest.raises(ApiError) as caught:
                await asked
            assert (caught.value.code, caught.value.reason) == (504, "Timeout")
