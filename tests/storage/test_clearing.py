"""Ranges that are cleared: little of it key by key, much of it at one stroke."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from typing_extensions import override

from clusterling.storage import memory
from clusterling.storage.clearing import BYTES_MAX, KEYS_MAX, clear
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Event, Op, Page, Store


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with memory.open() as opened:
        yield opened


async def fill(store: Store, count: int, value: bytes = b"{}") -> None:
    for number in range(count):
        await store.write([Op(f"a/core/configmaps/default/{number}", value)])
    await store.write([Op("b/core/configmaps/default/0", b"{}")])


async def cleared(store: Store) -> list[Event]:
    """What a watch sees of it."""
    async with store.watch("", after=store.head()) as watch:
        await clear(store, "a/")
        seen: list[Event] = []
        while (batch := watch.take()) is not None:
            seen += batch.events
    assert await store.count("a/") == 0
    assert await store.count("b/") == 1
    return seen


async def test_a_few_keys_are_deleted_by_one_write(store: Store) -> None:
    await fill(store, KEYS_MAX)
    seen = await cleared(store)
    assert len(seen) == KEYS_MAX
    assert not any(event.dropped for event in seen)


async def test_many_keys_are_dropped(store: Store) -> None:
    await fill(store, KEYS_MAX + 1)
    assert [(event.key, event.dropped) for event in await cleared(store)] == [("a/", True)]


async def test_a_few_large_values_are_dropped(store: Store) -> None:
    await fill(store, 2, b"x" * (BYTES_MAX // 2 + 1))
    assert [event.dropped for event in await cleared(store)] == [True]


async def test_where_nothing_is_nothing_is_written(store: Store) -> None:
    await fill(store, 0)
    assert await cleared(store) == []


class _Expiring(Keyspace):
    """Loses a key after each look."""

    @override
    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        page = await super().list(prefix, after=after, limit=limit, revision=revision)
        await self.write([Op(page.entries[0].key, None)])
        return page


async def test_what_expires_meanwhile_holds_nothing_up(store: Store) -> None:
    keys = _Expiring(store, "server")
    await fill(keys, 3)
    await clear(keys, "a/")
    assert await store.count("server/a/") == 0
    assert await store.count("server/b/") == 1
