"""Every store and every wrapper keeps the promises of `Store`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from clusterling.storage import memory, sqlite
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Op, Store
from clusterling.testing.store_contract import StoreContract


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def crowded(base: Store) -> Store:
    """A store in which other clusters have keys on both sides of where a keyspace will be."""
    for other in ("aaaa", "mmm", "mmmm-", "zzzz"):
        await base.write(
            [Op(f"{other}/apps/things/ns/theirs", b"theirs"), Op(f"{other}/core/others/-/x", b"")]
        )
    return base


class TestMemory(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        return await stack.enter_async_context(memory.open())


class TestKeyspace(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        return Keyspace(await crowded(await stack.enter_async_context(memory.open())), "mmmm")


class TestCacheOverMemory(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        return await stack.enter_async_context(CachedStore(await stack.enter_async_context(memory.open())))


class TestCacheOverKeyspace(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        base = await crowded(await stack.enter_async_context(memory.open()))
        return await stack.enter_async_context(CachedStore(Keyspace(base, "mmmm")))


class TestSqlite(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack, tmp_path: Path) -> Store:
        return await stack.enter_async_context(sqlite.open(tmp_path / "state.db"))


class TestCacheOverSqlite(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack, tmp_path: Path) -> Store:
        base = await crowded(await stack.enter_async_context(sqlite.open(tmp_path / "state.db")))
        return await stack.enter_async_context(CachedStore(Keyspace(base, "mmmm")))
