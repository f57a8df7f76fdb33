"""A replica that is cut off from the store refuses what it cannot know, and goes on by itself when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import postgres, postgres_links
from clusterling.storage.opening import open_store
from tests.controllers.conftest import config_map
from tests.replicas.stores import SharedStore, store
from tests.replicas.test_two_replicas import CRDS, MAPS, WIDGETS, widget, widget_crd
from tests.storage.proxy import Proxy, proxied

__all__ = ["store"]

PATIENCE_S = 60.0


@dataclass
class Pair:
    """`cut` reaches the store through `way`, `whole` reaches it without."""

    way: Proxy
    cut: ApiServer
    whole: ApiServer


@pytest.fixture
async def pair(store: SharedStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setattr(postgres_links, "PATIENCE_S", 0.5)
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.5)
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(proxied(store.endpoint))
        servers = []
        for url in (store.url(f"127.0.0.1:{way.port}"), store.url()):
            opened = await stack.enter_async_context(open_store(url))
            servers.append(await stack.enter_async_context(ApiServer(opened).running()))
        yield Pair(way, *servers)


async def refused(client: Client) -> ApiError:
    """What a consistent read is refused with, once it is."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await client.get(MAPS)
            except ApiError as error:
                return error


async def served(client: Client) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await client.get(MAPS)
            except ApiError as error:
                assert error.code in (503, 504), error
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("silent", [False, True])
async def test_a_replica_that_is_cut_off_refuses_is_unready_and_catches_up(pair: Pair, silent: bool) -> None:
    whole, cut = pair.whole, pair.cut
    await whole.clusters.create("team")
    await whole.clusters.create("doomed")
    token = await _token(whole, "doomed")
    url = await cut.listen()
    doomed = f"{url}/clusters/doomed/api/v1/namespaces"
    for name in ("team", "doomed"):
        await served(cut.client(name))
    assert await _status(doomed, token) == 200
    at = (await cut.client("team").get(MAPS))["metadata"]["resourceVersion"]
    async with cut.client("team").watching(MAPS, resourceVersion=at) as events, asyncio.timeout(PATIENCE_S):
        if silent:  # Nothing comes back, and nothing says so.
            pair.way.asking = pair.way.answering = False
        else:
            pair.way.open = False
            pair.way.cut()
        error = await refused(cut.client("team"))
        assert (error.code, error.headers.get("Retry-After")) == (503, "1")
        assert (await _status(f"{url}/readyz"), await _status(f"{url}/livez")) == (500, 200)
        # All that goes on without it.
        for number in range(5):
            await whole.client("team").post(MAPS, config_map(f"m{number}"))
        await whole.client("team").post(CRDS, widget_crd("widgets", "Widget"))
        await whole.clusters.create("new")
        await whole.clusters.delete("doomed")
        pair.way.asking = pair.way.answering = pair.way.open = True
        pair.way.cut()
        await served(cut.client("team"))
        assert (await cut.client("team").post(WIDGETS, widget("w")))["spec"] == {"size": 1}
        await cut.client("new").get("/api/v1/namespaces")
        assert await _status(doomed, token) in (401, 403)
        assert await _status(f"{url}/readyz") == 200
        names = [(await anext(events))["object"]["metadata"]["name"] for _ in range(5)]
        assert names == [f"m{number}" for number in range(5)]
    assert cut.failed is None and whole.failed is None


async def _token(server: ApiServer, cluster: str) -> str:
    if not server.url:
        await server.listen()
    config = await server.clusters.kubeconfig(cluster)
    token: str = config["users"][0]["user"]["token"]
    return token


async def _status(url: str, token: str = "") -> int:
    import aiohttp

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
        return answer.status
