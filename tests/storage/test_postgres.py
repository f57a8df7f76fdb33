"""PostgreSQL under the contract, and what several replicas over one database see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from clusterling.storage import postgres, postgres_links
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import ABSENT, Entry, Event, RevisionConflict, Store, UnknownOutcome, Watch
from clusterling.testing.store_contract import PATIENCE_S, StoreContract, put, remove, take, told


class TestPostgres(StoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with postgres.open(postgres_url) as store:
            yield store


class TestCacheOverPostgres(StoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with postgres.open(postgres_url) as base, CachedStore(Keyspace(base, "mmmm")) as store:
            yield store


# Several replicas over one database.


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[list[Store]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(postgres.open(postgres_url)) for _ in range(3)]


async def counted(store: Store, key: str, times: int) -> list[int]:
    """Adds one to the number at `key`, so often, against whoever else does; the revisions of its own writes."""
    revisions: list[int] = []
    while len(revisions) < times:
        entry = await store.get(key)
        assert entry is not None
        try:
            revisions.append(await put(store, key, str(int(entry.value) + 1).encode(), entry.revision))
        except RevisionConflict:
            continue
    return revisions


async def followed(watch: Watch, through: int) -> list[tuple[int, str, bytes | None]]:
    """Everything that the watch says up to and with the revision."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        while not events or events[-1].revision < through:
            events += (await anext(watch)).events
    return told(events)


async def test_of_replicas_that_write_one_key_exactly_one_wins(replicas: list[Store]) -> None:
    for number in range(20):
        writes = [put(store, f"apps/things/ns/{number}", b"", ABSENT) for store in replicas for _ in range(3)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["KeyExists"] * 8 + ["int"]


async def test_no_update_of_any_replica_is_lost(replicas: list[Store]) -> None:
    await put(replicas[0], "apps/things/ns/n", b"0")
    revisions = await asyncio.gather(*(counted(store, "apps/things/ns/n", 20) for store in replicas))
    entry = await replicas[0].get("apps/things/ns/n")
    assert entry is not None and entry.value == b"60"
    assert len({revision for some in revisions for revision in some}) == 60


async def test_every_watcher_of_every_replica_sees_all_events_once_in_one_order(
    replicas: list[Store],
) -> None:
    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(store.watch("apps/", after=store.head()))
            for store in replicas
            for _ in range(2)
        ]

        async def write(name: int, store: Store) -> list[tuple[int, str, bytes | None]]:
            written: list[tuple[int, str, bytes | None]] = []
            for number in range(80):
                key, value = f"apps/things/ns/{number % 7}-{name}", str(number).encode()
                written.append((await put(store, key, value), key, value))
                if number % 5 == 4:
                    written.append((await remove(store, key), key, None))
            return written

        writers = [write(name, store) for name, store in enumerate(replicas * 4)]
        expected = sorted(event for some in await asyncio.gather(*writers) for event in some)
        assert [revision for revision, _, _ in expected] == list(range(expected[0][0], expected[-1][0] + 1))
        for watch in watches:
            assert await followed(watch, expected[-1][0]) == expected


async def test_what_one_replica_acknowledged_every_other_has_after_fresh(replicas: list[Store]) -> None:
    one, two, three = replicas
    async with AsyncExitStack() as stack:
        caches = [
            await stack.enter_async_context(CachedStore(Keyspace(store, "id"))) for store in (two, three)
        ]
        for cache in caches:
            await cache.list("apps/things/")
        for number in range(50):
            revision = await put(one, f"id/apps/things/ns/{number}", b"")
            for store in (two, three):
                assert await store.fresh() >= revision
                assert store.head() >= revision
            for cache in caches:
                assert len((await cache.list("apps/things/")).entries) == number + 1


async def test_an_idle_replica_hears_of_a_write_without_asking(replicas: list[Store]) -> None:
    async with replicas[2].watch("", after=replicas[2].head()) as watch:
        revision = await put(replicas[0], "apps/things/ns/a", b"v")
        assert await followed(watch, revision) == [(revision, "apps/things/ns/a", b"v")]


async def test_a_drop_is_seen_by_every_replica(replicas: list[Store]) -> None:
    await put(replicas[0], "id/apps/things/a", b"")
    await asyncio.gather(*(store.fresh() for store in replicas))
    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(store.watch("id/apps/", after=store.head())) for store in replicas
        ]
        await replicas[1].drop("id/")
        for watch in watches:
            [event] = await take(watch, 1)
            assert event.dropped and event.key == "id/apps/"
        for store in replicas:
            assert await store.count("id/") == 0


async def test_previous_values_are_known_to_whoever_follows(replicas: list[Store]) -> None:
    first = await put(replicas[0], "apps/things/a", b"one")
    await asyncio.gather(*(store.fresh() for store in replicas))
    async with replicas[1].watch("", after=first) as watch:
        await put(replicas[0], "apps/things/a", b"two")
        await remove(replicas[2], "apps/things/a")
        changed, deleted = await _two(watch)
        assert changed.previous() == Entry("apps/things/a", b"one", first)
        before = deleted.previous()
        assert before is not None and before.value == b"two"


async def _two(watch: Watch) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(events) < 2:
            events += (await anext(watch)).events
    return events


async def test_all_replicas_have_one_identity(replicas: list[Store]) -> None:
    assert len({await store.identity() for store in replicas}) == 1


async def test_replicas_that_open_an_empty_database_together_make_one_store(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        stores = await asyncio.gather(
            *(stack.enter_async_context(postgres.open(postgres_url)) for _ in range(4))
        )
        await put(stores[0], "apps/things/a", b"")
        assert [await store.count("") for store in stores] == [1] * 4


async def test_any_replica_may_compact_while_others_write_and_watch(replicas: list[Store]) -> None:
    done = asyncio.Event()

    async def write(name: int, store: Store) -> int:
        last = 0
        for number in range(60):
            last = await put(store, f"apps/things/ns/{name}", str(number).encode())
        return last

    async def compact(store: Store) -> None:
        while not done.is_set():
            await store.compact(store.head() - 2)
            await asyncio.sleep(0)

    async with replicas[2].watch("", after=replicas[2].head()) as watch:
        compacting = [asyncio.create_task(compact(store)) for store in replicas[:2]]
        last = max(await asyncio.gather(*(write(name, store) for name, store in enumerate(replicas))))
        done.set()
        await asyncio.gather(*compacting)
        seen = await followed(watch, last)
        assert len(seen) == 180 and [revision for revision, _, _ in seen] == sorted({r for r, _, _ in seen})
    await replicas[0].compact(replicas[0].head())
    page = await replicas[1].list("apps/things/")
    assert [(entry.key[-1], entry.value) for entry in page.entries] == [(name, b"59") for name in "012"]


# Faults.


async def killed(url: str, count: int, pause_s: float) -> int:
    """Ends every connection to the schema's store, again and again; how many were ended."""
    address = postgres_links.parse(url)
    db = await asyncpg.connect(address.dsn)
    ended = 0
    try:
        for _ in range(count):
            await asyncio.sleep(pause_s)
            ended += await db.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'clusterling' AND pid <> pg_backend_pid()"
            )
    finally:
        await db.close()
    return ended


async def test_cut_connections_lose_no_acknowledged_write_and_no_event(
    postgres_url: str, replicas: list[Store]
) -> None:
    cutting = asyncio.create_task(killed(postgres_url, 12, 0.1))
    acknowledged: dict[str, tuple[int, bytes]] = {}
    unknown: set[str] = set()

    async def write(name: int, store: Store) -> None:
        number = 0
        while not cutting.done():
            key, value = f"apps/things/ns/{name}-{number}", str(number).encode()
            number += 1
            try:
                acknowledged[key] = (await put(store, key, value, ABSENT), value)
            except UnknownOutcome:
                unknown.add(key)

    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(store.watch("", after=store.head())) for store in replicas]
        await asyncio.gather(*(write(name, store) for name, store in enumerate(replicas * 2)))
        assert await cutting > 12
        last = max(revision for revision, _ in acknowledged.values())
        streams = [await followed(watch, last) for watch in watches]
    there = {entry.key: (entry.revision, entry.value) for entry in (await replicas[0].list("")).entries}
    assert acknowledged.items() <= there.items() and there.keys() <= acknowledged.keys() | unknown
    expected = sorted((revision, key, value) for key, (revision, value) in there.items())
    for stream in streams:
        assert stream == expected[: len(stream)] and stream[-1][0] >= last


async def test_a_batch_whose_reply_was_lost_is_looked_up_not_repeated(postgres_url: str) -> None:
    """Increments under cut connections: one that was told refused, but happened, would be counted twice."""
    async with postgres.open(postgres_url) as store:
        await put(store, "apps/things/ns/n", b"0")
        cutting = asyncio.create_task(killed(postgres_url, 20, 0.05))
        done = 0
        while not cutting.done():
            entry = await store.get("apps/things/ns/n")
            assert entry is not None and int(entry.value) == done
            # Nobody else writes: a conflict would be the echo of the write's own first attempt.
            await put(store, "apps/things/ns/n", str(done + 1).encode(), entry.revision)
            done += 1
        assert await cutting > 20 and done > 20


async def test_a_batch_given_up_never_happens(postgres_url: str) -> None:
    """What is still on its way when its outcome is looked up, is refused when it arrives."""
    async with postgres.open(postgres_url) as store:
        await put(store, "apps/things/a", b"1")
        address = postgres_links.parse(postgres_url)
        db = await postgres_links.connect(address)
        try:
            late = ("w", 7, [0], ["apps/things/a"], [b"late"], [None], [None], [], [], [])
            settled = await db.fetchrow(postgres.SETTLE, "w", 7)
            assert settled is not None and settled["happened"] is False
            with pytest.raises(asyncpg.PostgresError, match="given up"):
                await db.fetchrow(postgres.PUT, *late)
            again = await db.fetchrow(postgres.PUT, "w", 8, *late[2:])
            assert again is not None
            known = await db.fetchrow(postgres.SETTLE, "w", 8)
            assert known is not None
            assert known["happened"] is True and known["base_revision"] == again["base_revision"]
        finally:
            await db.close()
        entry = await store.get("apps/things/a")
        assert entry is not None and entry.value == b"late"
