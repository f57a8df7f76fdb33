"""What the stores keep twice is compared: nothing is found in a store that lived, and damage is."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import apsw
import asyncpg
import pytest

from clusterling.storage import bulk
from clusterling.storage.bulk import Finding
from clusterling.storage.etcd import writing
from clusterling.storage.etcd.layout import Layout, State, wrapped
from clusterling.storage.etcd.messages import rpc
from clusterling.storage.etcd.wire import Address, Wire
from clusterling.storage.opening import open_store
from clusterling.storage.postgres_links import connect, parse
from clusterling.storage.store import Op, Store
from clusterling.testing.store_contract import put
from tests.storage.test_copying import KINDS, Place, etcd, place

__all__ = ["etcd", "place"]


async def found(url: str) -> list[Finding]:
    async with bulk.snapshot(url) as snapshot:
        return [one async for one in snapshot.findings()]


async def live(store: Store, rng: random.Random) -> None:
    for _ in range(40):
        match rng.randrange(12):
            case 0:
                await store.drop(rng.choice(("a/", "a/x/", "b/")))
            case 1:
                await store.compact(max(1, store.head() - rng.randrange(20)))
            case 2:
                page = await store.list("")
                if page.entries:
                    await store.write([Op(rng.choice(page.entries).key, None)])
            case _:
                key = f"{rng.choice('ab')}/{rng.choice('xy')}/-/{rng.randrange(8)}"
                await store.write([Op(key, b"{}", None, rng.choice((None, 5, 9)))])


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_a_store_went_through_it_agrees_with_itself(kind: str, place: Place) -> None:
    url = place(kind)
    for seed in range(8):
        async with open_store(url) as store:
            await live(store, random.Random(seed))
            assert await found(url) == [], seed
        assert await found(url) == [], seed


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        ("DELETE FROM log WHERE key = 'b/x/-/2'", ("b/x/-/2", "state-without-log")),
        ("UPDATE log SET key = 'b/x/-/9' WHERE key = 'b/x/-/2'", ("b/x/-/2", "state-against-log")),
        ("UPDATE state SET revision = 3 WHERE key = 'b/x/-/2'", ("b/x/-/2", "log-without-state")),
        (
            "INSERT INTO log (revision, key, previous, value) VALUES (2, 'b/x/-/2', 0, NULL)",
            ("b/x/-/2", "log-not-swept"),
        ),
        ("UPDATE log SET previous = -1000 WHERE key = 'b/x/-/2'", ("b/x/-/2", "log-chain")),
        ("INSERT INTO drops VALUES ('nothing/', 3)", ("nothing/", "drop-without-log")),
    ],
)
async def test_damage_is_found_where_it_is(
    kind: str, damage: str, wanted: tuple[str, str], place: Place
) -> None:
    url = place(kind)
    async with open_store(url) as store:
        for number in range(5):
            await put(store, f"a/x/-/{number}", b"{}")
        await store.drop("a/")
        await store.compact(await put(store, "b/x/-/0", b"{}"))
        for number in range(5):
            await put(store, f"b/x/-/{number}", b"{}")
    await execute(url, damage)
    assert wanted in [(one.where, one.kind) for one in await found(url)]


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("UPDATE clock SET horizon = head + 1", "counters"),
        ("UPDATE clock SET drops = 7", "counters"),
        ("UPDATE clock SET head = 3", "log-ahead"),
        ("DELETE FROM log WHERE revision = 4", "history-gap"),
    ],
)
async def test_the_database_counts_right(damage: str, kind: str, place: Place) -> None:
    url = place("postgres")
    async with open_store(url) as store:
        for number in range(5):
            await put(store, f"b/x/-/{number}", b"{}")
    await execute(url, damage)
    assert kind in {one.kind for one in await found(url)}


async def execute(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        file = apsw.Connection(unquote(urlsplit(url).path))
        file.execute(statement)
        assert file.changes() == 1
        file.close()
        return
    db: asyncpg.Connection[asyncpg.Record] = await connect(parse(url))
    try:
        assert (await db.execute(statement)).endswith(" 1")
    finally:
        await db.close()


async def rewrite(url: str, *operations: Any) -> None:
    wire = Wire(Address.parsed(url))
    try:
        await wire.write(rpc.TxnRequest(success=operations))
    finally:
        await wire.close()


def damages(layout: Layout) -> dict[str, tuple[list[Any], tuple[str, str]]]:
    """What is done behind the store's back, and what is to be found of it."""
    sound = wrapped(b"{}", 0, None)
    return {
        "no envelope": ([writing.put(layout.key("b/x/-/2"), b"{}")], ("b/x/-/2", "envelope")),
        "no text": ([writing.put(layout.data + b"b/\xff", sound)], ("b/\\xff", "envelope")),
        "stranger": ([writing.put(layout.root + b"q", b"")], ("test", "stranger")),
        "stranger within": ([writing.put(layout.root + b"cc", b"")], ("test", "stranger")),
        "not filed": (
            [writing.delete(layout.expiries, layout.expiries[:-1] + b"0")],
            ("b/x/-/9", "expiry-not-filed"),
        ),
        "twice": (
            [writing.put(layout.key("b/x/-/7"), sound), writing.put(layout.key("b/x/-/8"), sound)],
            ("", "revision-twice"),
        ),
    }


@pytest.mark.parametrize("name", list(damages(Layout("/x/"))))
async def test_damage_in_etcd_is_found(name: str, place: Place) -> None:
    url = place("etcd")
    async with open_store(url) as store:
        for number in range(5):
            await put(store, f"b/x/-/{number}", b"{}")
        await store.write([Op("b/x/-/9", b"{}", None, 5), Op("b/x/-/10", b"{}", None, 5)])
    operations, (where, kind) = damages(Layout(Address.parsed(url).root))[name]
    await rewrite(url, *operations)
    findings = await found(url)
    assert kind in {one.kind for one in findings}
    if kind in ("envelope", "expiry-not-filed"):
        assert where in {one.where for one in findings}


async def test_a_horizon_ahead_of_etcd_is_found(place: Place) -> None:
    url = place("etcd")
    async with open_store(url) as store:
        await put(store, "b/x/-/1", b"{}")
    address = Address.parsed(url)
    layout, wire = Layout(address.root), Wire(address)
    try:
        [kv] = (
            (await wire.read(rpc.TxnRequest(success=[writing.get(layout.state)])))
            .responses[0]
            .response_range.kvs
        )
        state = State.decoded(kv.value, kv.mod_revision)
        ahead = State(state.id, state.epoch, state.offset, 1 << 60, state.etcd)
        await wire.write(rpc.TxnRequest(success=[writing.put(layout.state, ahead.encoded())]))
    finally:
        await wire.close()
    assert [one.kind for one in await found(url)] == ["counters"]


OBJECTS: Final = 100
CHANGES: Final = 300  # Of each. etcd deletes a thousand of what was compacted at a time, after its answer.
VALUE_BYTES: Final = 400


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_compacted_gives_its_space_back(kind: str, place: Place) -> None:
    url = place(kind)
    everything = OBJECTS * CHANGES * VALUE_BYTES
    async with open_store(url) as store:
        for number in range(CHANGES):
            value = random.Random(number).randbytes(VALUE_BYTES)
            await store.write([Op(f"a/x/-/{name}", value) for name in range(OBJECTS)])
        # etcd's file grows a moment after etcd has acknowledged a write.
        async with asyncio.timeout(10):
            while await disk_bytes(url) < everything:
                await asyncio.sleep(0.05)
        await store.compact(store.head())
    await bulk.reclaim(url)
    assert await disk_bytes(url) < everything / 4
    async with open_store(url) as store:
        assert await store.count("") == OBJECTS


async def disk_bytes(url: str) -> int:
    async with bulk.snapshot(url) as snapshot:
        return (await snapshot.figures()).disk_bytes or 0
