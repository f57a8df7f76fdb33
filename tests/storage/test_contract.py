"""Every store and every wrapper keeps the promises of `Store`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from clusterling.storage import memory, sqlite
from clusterling.storage.cache import CachedStore
from clusterling.storage.guarded import Guarded
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.metered import MeteredStore
from clusterling.storage.overlay import Overlay
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


def derive(key: str, value: bytes) -> bytes:
    """Lower values may not be taken for the cluster's own: they must pass through here."""
    return b"derived " + key.encode() + b" " + value


class TestOverlayOverNothing(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        base = await crowded(await stack.enter_async_context(memory.open()))
        return Overlay(Keyspace(base, "mmmm"), Keyspace(base, "nothing"), derive)


async def hidden(overlay: Store, lower: Store) -> Store:
    """Puts below all that the contract writes, then deletes it above: the contract then meets whiteouts everywhere."""
    parts = [("apps", "things"), ("core", "others")]
    names = [*"abcdxyz", "taken", "fence", "early", "late", "never", "gone", "after", "é", "😀"]
    names += [str(n) for n in range(30)] + [f"{n:02}" for n in range(12)] + [f"{n:05}" for n in range(20)]
    keys = [f"{a}/{b}/{ns}/{name}" for a, b in parts for ns in ("ns", "a", "b", "-") for name in names]
    keys = sorted({*keys, "apps/things/moved", "apps/things/ended", "apps/things-2/ns/a"})
    for key in keys:
        await lower.write([Op(key, b"below")])
    for key in keys:
        await overlay.write([Op(key, None)])
    return overlay


class TestOverlayOverHidden(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        base = await crowded(await stack.enter_async_context(memory.open()))
        lower = Keyspace(base, "lower")
        return await hidden(Overlay(Keyspace(base, "mmmm"), lower, derive), lower)


class TestCacheOverOverlay(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        base = await crowded(await stack.enter_async_context(memory.open()))
        lower = Keyspace(base, "lower")
        reads = await stack.enter_async_context(CachedStore(lower))
        overlay = Overlay(Keyspace(base, "mmmm"), lower, derive, reads=reads)
        return await stack.enter_async_context(CachedStore(await hidden(overlay, lower)))


class TestMetered(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        return MeteredStore(await stack.enter_async_context(memory.open()))


class TestGuarded(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack) -> Store:
        base = await stack.enter_async_context(memory.open())
        await base.write([Op("root/fence", b"")])
        return Guarded(base, "root/fence")
