"""A whole server over the memory store, with its controllers running, and a cluster to try them in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory
from clusterling.storage.store import Store

PATIENCE_S = 30.0  # What takes longer than this is lost, not late.


@dataclass
class Served:
    """A server, its store, and a client of one of its clusters."""

    server: ApiServer
    store: Store
    cluster: Client


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Returns once the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.01)


async def exists(client: Client, path: str) -> bool:
    try:
        await client.get(path)
    except ApiError as error:
        assert error.code == 404, error
        return False
    return True


def config_map(name: str, **metadata: object) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def owned_by(owner: Object, **more: object) -> list[Object]:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        **more,
    }
    return [reference]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with memory.open() as store, ApiServer(store).running() as server:
        await server.clusters.create("team")
        yield Served(server, store, server.client("team"))
