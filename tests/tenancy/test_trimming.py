"""Memory that nobody uses any more."""

from __future__ import annotations

import asyncio
import gc
import platform
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterling.server import ApiServer
from clusterling.storage import memory
from clusterling.tenancy import pool
from clusterling.tenancy.trimming import trim

BLOCK_BYTES = 10_000  # Small enough for the heap, too large for Python's own pools.
BLOCKS = 8_000


@pytest.fixture(autouse=True)
def nobody_else_collects() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing, or say nothing"
)
async def test_what_was_freed_goes_back_to_the_system() -> None:
    blocks = [bytes(BLOCK_BYTES) for _ in range(BLOCKS)]
    pinned = bytes(BLOCK_BYTES)  # Lies above them, so that the heap cannot just end earlier.
    full = resident_bytes()
    del blocks
    await trim()
    assert resident_bytes() < full - BLOCKS * BLOCK_BYTES // 2
    assert len(pinned) == BLOCK_BYTES


class Linked:
    """An object that leads back to itself."""

    def __init__(self) -> None:
        self.me = self


async def test_what_lies_in_cycles_is_found() -> None:
    linked = Linked()
    gone = weakref.ref(linked)
    del linked
    await trim()
    assert gone() is None


async def test_a_pool_gives_back_what_many_clusters_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MANY", 3)
    monkeypatch.setattr(pool, "GIVE_BACK_EVERY_S", 0.01)
    linked = Linked()
    gone = weakref.ref(linked)
    async with memory.open() as store, ApiServer(store).running() as server:
        for number in range(3):
            await server.clusters.create(f"c{number}")
            await server.client(f"c{number}").get("/api/v1/namespaces/default")
        del linked
        for number in range(3):
            await server.clusters.delete(f"c{number}")
        async with asyncio.timeout(10):
            while gone() is not None:
                await asyncio.sleep(0.01)
