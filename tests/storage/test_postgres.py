"""PostgreSQL under the contract, and what several replicas over one database see."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from clusterling.storage import postgres as postgres_store
from clusterling.storage import postgres_links
from clusterling.storage.cache import CacheBudget, CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.postgres import open as open_postgres
from clusterling.storage.store import (
    ABSENT,
    Compacted,
    Entry,
    Event,
    Guard,
    Identity,
    Limit,
    Op,
    Page,
    RevisionConflict,
    Store,
    StoreOpenError,
    Unavailable,
    UnknownOutcome,
    Usage,
    Watch,
)
from clusterling.testing.store_contract import PATIENCE_S, StoreContract, put, remove, take, told
from tests.storage import postgres_server
from tests.storage.conftest import new_url
from tests.storage.following import followed_to
from tests.storage.postgres_server import USER, PostgresServer
from tests.storage.proxy import proxied
from tests.storage.test_model import EXAMPLES, Make, StoreMachine, finish

T = TypeVar("T")


class TestPostgres(StoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with open_postgres(postgres_url) as store:
            yield store


class TestCacheOverPostgres(StoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with open_postgres(postgres_url) as base, CachedStore(Keyspace(base, "mmmm")) as store:
            yield store


# Several replicas over one database.


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[list[Store]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_postgres(postgres_url)) for _ in range(3)]


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
            *(stack.enter_async_context(open_postgres(postgres_url)) for _ in range(4))
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
            # Whoever lags behind what history keeps is told so, which is another test.
            await store.compact(min(one.head() for one in replicas) - 2)
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
        # While they write: it may be more than is kept for a watcher that is away.
        following = [asyncio.create_task(followed_to(watch, "apps/things/end")) for watch in watches]
        await asyncio.gather(*(write(name, store) for name, store in enumerate(replicas * 2)))
        assert await cutting > 0
        last = await put(replicas[0], "apps/things/end", b"")
        acknowledged["apps/things/end"] = (last, b"")
        async with asyncio.timeout(PATIENCE_S):
            streams = [told(one) for one in await asyncio.gather(*following)]
    there = {entry.key: (entry.revision, entry.value) for entry in (await replicas[0].list("")).entries}
    assert acknowledged.items() <= there.items() and there.keys() <= acknowledged.keys() | unknown
    expected = sorted((revision, key, value) for key, (revision, value) in there.items())
    for stream in streams:
        assert stream == expected[: len(stream)] and stream[-1][0] >= last


async def test_a_batch_whose_reply_was_lost_is_looked_up_not_repeated(postgres_url: str) -> None:
    """Increments under cut connections: one that was told refused, but happened, would be counted twice."""
    async with open_postgres(postgres_url) as store:
        await put(store, "apps/things/ns/n", b"0")
        cutting = asyncio.create_task(killed(postgres_url, 15, 0.1))
        done = 0
        while not cutting.done():
            entry = await store.get("apps/things/ns/n")
            assert entry is not None and int(entry.value) == done
            # Nobody else writes: a conflict would be the echo of the write's own first attempt.
            await put(store, "apps/things/ns/n", str(done + 1).encode(), entry.revision)
            done += 1
        assert await cutting > 0 and done > 0


async def test_a_batch_given_up_never_happens(postgres_url: str) -> None:
    """What is still on its way when its outcome is looked up, is refused when it arrives."""
    async with open_postgres(postgres_url) as store:
        await put(store, "apps/things/a", b"1")
        address = postgres_links.parse(postgres_url)
        db = await postgres_links.connect(address)
        try:
            ops: tuple[Any, ...] = ([0], ["apps/things/a"], [b"late"], [None], [None], *([[]] * 8))
            settled = await db.fetchrow(postgres_store.SETTLE, "w", 7)
            assert settled is not None and settled["happened"] is False
            with pytest.raises(asyncpg.PostgresError, match="given up"):
                await db.fetchrow(postgres_store.COMMIT, "w", 7, 0, None, *ops)
            again = await db.fetchrow(postgres_store.COMMIT, "w", 8, 0, None, *ops)
            assert again is not None
            known = await db.fetchrow(postgres_store.SETTLE, "w", 8)
            assert known is not None
            assert known["happened"] is True and known["base_revision"] == again["base_revision"]
        finally:
            await db.close()
        entry = await store.get("apps/things/a")
        assert entry is not None and entry.value == b"late"


async def test_a_commits_reply_has_what_came_before_it_unless_that_is_much(postgres_url: str) -> None:
    async with open_postgres(postgres_url) as store:
        first = await put(store, "apps/things/a", b"1")
        await put(store, "apps/things/b", b"2")
        await put(store, "apps/things/a", b"3")
        await remove(store, "apps/things/b")
        db = await postgres_links.connect(postgres_links.parse(postgres_url))

        async def commit(number: int, seen: int) -> Any:
            ops: tuple[Any, ...] = ([0], ["apps/things/c"], [b""], [None], [None], *([[]] * 8))
            return await db.fetchrow(postgres_store.COMMIT, "w", number, seen, None, *ops)

        try:
            reply = await commit(1, first)
            assert reply["base_revision"] == first + 3
            assert reply["keys"] == ["apps/things/b", "apps/things/a", "apps/things/b"]
            assert reply["previous"] == [0, first, first + 1]
            assert reply["contents"] == [b"2", b"3", None]
            assert (await commit(2, first + 4))["keys"] == []
            seen = first + 5
            for size in (postgres_store.OTHERS_BYTES_MAX, 1):
                await put(store, "apps/things/large", bytes(size))
            assert (await commit(3, seen))["keys"] is None
            assert (await commit(4, seen + 1))["keys"] == ["apps/things/large", "apps/things/c"]
        finally:
            await db.close()


async def test_what_was_missed_is_followed_however_much_it_is(postgres: PostgresServer) -> None:
    url = new_url(postgres)
    async with (
        proxied(f"127.0.0.1:{postgres.port}") as proxy,
        open_postgres(url) as one,
        open_postgres(url.replace(f":{postgres.port}/", f":{proxy.port}/")) as two,
        two.watch("", after=two.head()) as watch,
    ):
        proxy.open = False
        proxy.cut()
        value = bytes(1 << 20)
        count = 3 * postgres_store.ROUND_BYTES // len(value)
        written = [await put(one, f"apps/things/{n % 5}", value) for n in range(count)]
        proxy.open = True
        seen = await followed(watch, written[-1])
        assert [revision for revision, _, _ in seen] == written


async def test_who_was_passed_by_compaction_is_told_so(postgres: PostgresServer) -> None:
    url = new_url(postgres)
    async with (
        proxied(f"127.0.0.1:{postgres.port}") as proxy,
        open_postgres(url) as one,
        open_postgres(url.replace(f":{postgres.port}/", f":{proxy.port}/")) as two,
        two.watch("", after=two.head()) as watch,
    ):
        proxy.open = False
        proxy.cut()
        for _ in range(50):
            last = await put(one, "apps/things/a", b"")
        await one.compact(last)
        proxy.open = True
        with pytest.raises(Compacted):
            async with asyncio.timeout(PATIENCE_S):
                await anext(watch)
        await eventually(two.fresh)
        assert two.head() == last
        assert await put(two, "apps/things/a", b"", last) == last + 1


# The model of test_model.py.


def model_examples() -> int:
    return EXAMPLES if EXAMPLES != 60 else 25


def run_model(make: Make, finished: Callable[[str, bytes, int], bytes] | None = None) -> None:
    attributes: dict[str, Any] = {"make": staticmethod(make)}
    if finished is not None:
        attributes["finished"] = staticmethod(finished)
    run_state_machine_as_test(
        type("Machine", (StoreMachine,), attributes),
        settings=settings(
            max_examples=model_examples(),
            stateful_step_count=40,
            deadline=None,
            derandomize=EXAMPLES == 60,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_it_does_what_the_model_does(postgres: PostgresServer) -> None:
    async def make(stack: AsyncExitStack, _directory: Path) -> Store:
        return await stack.enter_async_context(open_postgres(new_url(postgres)))

    run_model(make)


def test_a_cache_over_it_does_what_the_model_does(postgres: PostgresServer) -> None:
    async def make(stack: AsyncExitStack, _directory: Path) -> Store:
        base = await stack.enter_async_context(open_postgres(new_url(postgres)))
        await base.write([Op("ic/g/r/a/x", b"theirs"), Op("idd/g/r/a/x", b"theirs")])
        budget = CacheBudget(bytes_max=9000)
        return await stack.enter_async_context(
            CachedStore(Keyspace(base, "id"), finish=finish, budget=budget)
        )

    run_model(make, finish)


class AnyReplica:
    """A Store that sends each call to the next of several replicas, and watches through the first.

    Before a call that reads memory it asks `fresh`, as the service does before each request.
    """

    def __init__(self, replicas: Sequence[Store]) -> None:
        self._replicas = itertools.cycle(replicas)
        self._first = replicas[0]

    async def get(self, key: str) -> Entry | None:
        return await next(self._replicas).get(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        return await next(self._replicas).list(prefix, after=after, limit=limit, revision=revision)

    async def count(self, prefix: str) -> int:
        return await next(self._replicas).count(prefix)

    async def usage(self, prefix: str) -> Sequence[Usage]:
        return await next(self._replicas).usage(prefix)

    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        revisions = await next(self._replicas).write(ops, guards, limits)
        await self._first.fresh()
        return revisions

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return self._first.watch(prefix, after=after)

    def head(self) -> int:
        return self._first.head()

    async def fresh(self) -> int:
        return await self._first.fresh()

    async def compact(self, horizon: int) -> None:
        await next(self._replicas).compact(horizon)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        await next(self._replicas).drop(prefix, guards)
        await self._first.fresh()

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        return await next(self._replicas).expired(now, limit)

    async def identity(self) -> Identity:
        return await next(self._replicas).identity()


def test_three_replicas_do_what_the_model_of_one_store_does(postgres: PostgresServer) -> None:
    async def make(stack: AsyncExitStack, _directory: Path) -> Store:
        url = new_url(postgres)
        return AnyReplica([await stack.enter_async_context(open_postgres(url)) for _ in range(3)])

    run_model(make)


class TestThreeReplicas(StoreContract):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async with AsyncExitStack() as stack:
            yield AnyReplica([await stack.enter_async_context(open_postgres(postgres_url)) for _ in range(3)])


# A server of the test's own, which is stopped, killed, put back.


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    try:
        with postgres_server.running() as server:
            yield server
    except postgres_server.NoPostgres as reason:
        pytest.skip(str(reason))


async def eventually(attempt: Callable[[], Awaitable[T]]) -> T:
    """The result of the first attempt that the store does not refuse."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await attempt()
            except (Unavailable, UnknownOutcome):
                await asyncio.sleep(0.05)


async def test_while_the_database_stands_still_nothing_is_answered_and_then_all_goes_on(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QUERY_S", "PATIENCE_S"):
        for module in (postgres_store, postgres_links):
            monkeypatch.setattr(module, name, 0.5)
    monkeypatch.setattr(postgres_store, "READ_S", 0.5)
    monkeypatch.setattr(postgres_links, "CONNECT_S", 0.5)
    async with (
        open_postgres(own_server.url) as one,
        open_postgres(own_server.url) as two,
        two.watch("", after=two.head()) as watch,
    ):
        first = await put(one, "apps/things/a", b"1")
        await eventually(two.fresh)
        own_server.pause()
        try:
            with pytest.raises((Unavailable, UnknownOutcome)):
                await put(one, "apps/things/b", b"2")
            for ask in (two.fresh, lambda: two.get("apps/things/a"), lambda: two.list("apps/")):
                with pytest.raises(Unavailable):
                    await ask()
            for _ in range(3):  # Long away: refused without a wait.
                with pytest.raises(Unavailable):
                    await put(one, "apps/things/c", b"3")
        finally:
            own_server.resume()
        last = await eventually(lambda: put(one, "apps/things/d", b"4"))
        await eventually(two.fresh)
        seen = await followed(watch, last)
        assert seen[0] == (first, "apps/things/a", b"1") and seen[-1] == (last, "apps/things/d", b"4")
        page = await eventually(lambda: two.list(""))
        there = {entry.key: entry.revision for entry in page.entries}
        assert {key: revision for revision, key, _ in seen} == there


async def test_what_was_acknowledged_survives_a_killed_database(own_server: PostgresServer) -> None:
    acknowledged: dict[str, int] = {}
    async with (
        open_postgres(own_server.url) as one,
        open_postgres(own_server.url) as two,
        two.watch("", after=two.head()) as watch,
    ):
        done = False

        async def write(name: int) -> None:
            number = 0
            while not done:
                number += 1
                key = f"apps/things/{name}-{number}"
                try:
                    acknowledged[key] = await put(one, key, b"v", ABSENT)
                except (Unavailable, UnknownOutcome):
                    await asyncio.sleep(0.05)

        # While they write: it may be more than is kept for a watcher that is away.
        following = asyncio.create_task(followed_to(watch, "apps/things/end"))
        writers = [asyncio.create_task(write(name)) for name in range(4)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            own_server.kill()
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own_server.start)
            await eventually(one.fresh)
        done = True
        await asyncio.gather(*writers)
        await eventually(lambda: put(one, "apps/things/end", b""))
        await eventually(two.fresh)
        there = {entry.key: entry.revision for entry in (await two.list("")).entries}
        assert acknowledged and acknowledged.items() <= there.items()
        async with asyncio.timeout(PATIENCE_S):
            seen = told(await following)
        assert [revision for revision, _, _ in seen] == sorted(there.values())


async def test_a_database_put_back_ends_watches_and_takes_up_beyond_what_was_seen(
    own_server: PostgresServer, tmp_path: Path
) -> None:
    async with (
        open_postgres(own_server.url) as one,
        open_postgres(own_server.url) as two,
        CachedStore(Keyspace(two, "id")) as cache,
    ):
        kept = await put(one, "id/apps/things/kept", b"kept")
        before = await one.identity()
        own_server.stop()
        own_server.copy_data(tmp_path / "backup")
        await asyncio.to_thread(own_server.start)
        await eventually(one.fresh)
        lost = await eventually(lambda: put(one, "id/apps/things/lost", b"lost"))
        assert len((await eventually(lambda: cache.list("apps/things/"))).entries) == 2
        async with two.watch("", after=lost) as watch:
            own_server.stop()
            own_server.restore_data(tmp_path / "backup")
            await asyncio.to_thread(own_server.start)
            await eventually(one.fresh)
            await eventually(two.fresh)
            with pytest.raises(Compacted):
                async with asyncio.timeout(PATIENCE_S):
                    await anext(watch)
        assert one.head() > lost and two.head() > lost
        after = await one.identity()
        assert after.id == before.id and after.epoch == before.epoch + 1
        assert await two.identity() == after
        page = await cache.list("apps/things/")
        assert [(entry.key[-4:], entry.revision) for entry in page.entries] == [("kept", kept)]
        with pytest.raises(Compacted):
            await one.list("id/", revision=lost)
        with pytest.raises(RevisionConflict):
            await put(one, "id/apps/things/lost", b"", lost)
        async with two.watch("", after=two.head()) as watch:
            revision = await put(one, "id/apps/things/new", b"")
            assert [event.revision for event in await take(watch, 1)] == [revision]
        assert revision > lost


async def test_a_database_put_back_twice_to_one_backup_gives_no_revision_and_no_epoch_twice(
    own_server: PostgresServer, tmp_path: Path
) -> None:
    async with open_postgres(own_server.url) as one, open_postgres(own_server.url) as two:
        await put(one, "apps/things/kept", b"kept")
        own_server.stop()
        own_server.copy_data(tmp_path / "backup")
        await asyncio.to_thread(own_server.start)
        await eventually(one.fresh)
        for _ in range(2):
            epoch = (await one.identity()).epoch
            lost = await eventually(lambda: put(one, "apps/things/lost", b"lost"))
            await eventually(two.fresh)
            own_server.stop()
            own_server.restore_data(tmp_path / "backup")
            await asyncio.to_thread(own_server.start)
            await eventually(two.fresh)
            await eventually(one.fresh)
            assert await one.identity() == await two.identity()
            assert (await one.identity()).epoch == epoch + 1
            assert one.head() > lost and two.head() > lost
            assert await one.get("apps/things/lost") is None
            async with two.watch("", after=two.head()) as watch:
                revision = await put(one, "apps/things/new", b"")
                assert revision > lost
                assert [event.revision for event in await take(watch, 1)] == [revision]


async def test_a_database_put_back_is_noticed_also_when_another_has_written_past_what_was_seen(
    own_server: PostgresServer, tmp_path: Path
) -> None:
    async with (
        proxied(f"127.0.0.1:{own_server.port}") as proxy,
        open_postgres(own_server.url.replace(f":{own_server.port}/", f":{proxy.port}/")) as store,
    ):
        await put(store, "apps/things/kept", b"kept")
        own_server.stop()
        own_server.copy_data(tmp_path / "backup")
        await asyncio.to_thread(own_server.start)
        await eventually(store.fresh)
        lost = await eventually(lambda: put(store, "apps/things/lost", b"lost"))
        async with store.watch("", after=lost) as watch:
            proxy.open = False
            proxy.cut()
            own_server.stop()
            own_server.restore_data(tmp_path / "backup")
            await asyncio.to_thread(own_server.start)
            async with open_postgres(own_server.url) as unknowing:
                other = [await put(unknowing, f"apps/things/{n}", b"other") for n in range(5)]
            assert other[0] == lost < other[-1], "the same revision was given twice"
            proxy.open = True
            await eventually(store.fresh)
            with pytest.raises(Compacted):
                async with asyncio.timeout(PATIENCE_S):
                    await anext(watch)
        assert store.head() > other[-1]
        assert (await store.identity()).epoch == 2
        assert await store.get("apps/things/lost") is None
        assert await put(store, "apps/things/new", b"new") > other[-1]


async def put_back(url: str, revision: int) -> None:
    """Makes the store what it was at that revision, as a restore under live connections would, in the same epoch."""
    db = await postgres_links.connect(postgres_links.parse(url))
    try:
        async with db.transaction():
            await db.execute("UPDATE clock SET head = $1", revision)
            await db.execute("DELETE FROM state WHERE revision > $1", revision)
            await db.execute("DELETE FROM log WHERE revision > $1", revision)
            await db.execute("DELETE FROM writers")
    finally:
        await db.close()


@pytest.mark.parametrize("notices", ["by asking", "by writing", "by itself"])
async def test_a_store_put_back_under_its_connections_is_noticed_and_takes_no_revision_twice(
    postgres_url: str, notices: str
) -> None:
    async with open_postgres(postgres_url) as store:
        kept = await put(store, "apps/things/kept", b"kept")
        for _ in range(5):
            lost = await put(store, "apps/things/lost", b"lost")
        async with store.watch("", after=lost) as watch:
            await put_back(postgres_url, kept)
            if notices == "by asking":
                assert await eventually(store.fresh) > lost
            elif notices == "by writing":
                assert await eventually(lambda: put(store, "apps/things/new", b"")) > lost
            with pytest.raises(Compacted):
                async with asyncio.timeout(PATIENCE_S):
                    await anext(watch)
        assert (await store.identity()).epoch == 2
        assert await store.get("apps/things/lost") is None
        assert await put(store, "apps/things/newer", b"") > lost


# Space.


async def test_rewriting_forever_does_not_grow_the_database(postgres_url: str) -> None:
    value = b"{" + b"x" * 4000
    db = await postgres_links.connect(postgres_links.parse(postgres_url))
    try:
        async with open_postgres(postgres_url) as store:
            sizes: list[int] = []
            for _ in range(12):
                for _ in range(40):
                    await store.write([Op(f"apps/things/{n}", value) for n in range(50)])
                await store.compact(store.head())
                # As autovacuum does, and compaction itself after more than this.
                await db.execute("VACUUM log, state")
                sizes.append(await db.fetchval("SELECT pg_total_relation_size('log')"))
            # Each key's value, and the one before the newest write, which a list at the horizon's edge follows.
            assert await db.fetchval("SELECT count(*) FROM log") <= 51
            # Whoever reads meanwhile (autovacuum's own ANALYZE) keeps what one or two rounds left; not all of them.
            assert sizes[-1] <= 4 * sizes[0], sizes
    finally:
        await db.close()


# Opening.


async def refused(url: str, password: str | None = None) -> str:
    """What opening says: one line for an operator."""
    with pytest.raises(StoreOpenError) as caught:
        async with open_postgres(url, password=password):
            pass
    message = str(caught.value)
    assert "\n" not in message
    return message


async def test_what_keeps_it_from_opening_is_said_in_a_line_without_the_password(
    postgres: PostgresServer,
) -> None:
    there = f"127.0.0.1:{postgres.port}"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    assert "cannot be reached" in await refused(f"postgres://u:secret@127.0.0.1:{free}/db")
    assert "does not exist" in await refused(f"postgres://{USER}:secret@{there}/nothing")
    assert "names no database" in await refused(f"postgres://{USER}:secret@{there}")
    assert "schema=A-b" in await refused(f"postgres://{USER}:secret@{there}/postgres?schema=A-b")
    for url in (f"postgres://u:secret@127.0.0.1:{free}/db", f"postgres://{USER}:secret@{there}/nothing"):
        assert "secret" not in await refused(url)


async def test_a_password_given_apart_goes_before_the_urls(postgres: PostgresServer) -> None:
    db = await asyncpg.connect(postgres.url)
    try:
        await db.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        await db.execute("CREATE SCHEMA locked AUTHORIZATION locked")
    finally:
        await db.close()
    url = f"postgres://locked:wrong@127.0.0.1:{postgres.port}/postgres?schema=locked"
    assert "lets nobody in" in await refused(url)
    assert "lets nobody in" in await refused(url, "also wrong")
    async with open_postgres(url, password="right") as store:
        await put(store, "apps/things/a", b"")


async def test_a_user_without_rights_is_told_which_are_missing(postgres: PostgresServer) -> None:
    db = await asyncpg.connect(postgres.url)
    try:
        await db.execute("CREATE ROLE nobody LOGIN")
    finally:
        await db.close()
    assert "create its schema" in await refused(
        f"postgres://nobody@127.0.0.1:{postgres.port}/postgres?schema=x"
    )


async def test_a_schema_of_something_else_is_left_alone(postgres: PostgresServer, postgres_url: str) -> None:
    schema = postgres_links.parse(postgres_url).schema
    db = await asyncpg.connect(postgres.url)
    try:
        await db.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.log (mine text)")
        assert "belongs to something else" in await refused(postgres_url)
        assert await db.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = $1", schema) == 1
    finally:
        await db.close()


async def test_an_older_version_is_refused_by_what_a_newer_one_migrated(postgres_url: str) -> None:
    async with open_postgres(postgres_url) as store:
        await put(store, "apps/things/a", b"")
        db = await postgres_links.connect(postgres_links.parse(postgres_url))
        try:
            await db.execute("INSERT INTO migrations (number, name) VALUES (9999, 'later')")
        finally:
            await db.close()
        assert "9999" in await refused(postgres_url)
        # One that runs goes on over the connections it has, and is refused with the next ones.
        await put(store, "apps/things/b", b"")
        await killed(postgres_url, 1, 0)
        with pytest.raises((Unavailable, UnknownOutcome)):  # The latter where the cut is not noticed yet.
            await put(store, "apps/things/c", b"")
        with pytest.raises(Unavailable):
            await store.get("apps/things/a")


async def test_a_reopened_store_has_everything_and_goes_on(postgres_url: str) -> None:
    async with open_postgres(postgres_url) as store:
        first = await put(store, "apps/things/a", b"one")
        identity = await store.identity()
    async with open_postgres(postgres_url) as store:
        assert await store.identity() == identity and store.head() == first
        assert await store.get("apps/things/a") == Entry("apps/things/a", b"one", first)
        assert await put(store, "apps/things/a", b"two", first) > first


async def test_a_key_too_long_for_an_index_fails_alone(postgres_url: str) -> None:
    async with open_postgres(postgres_url) as store:
        results = await asyncio.gather(
            put(store, "apps/things/ns/a", b""),
            put(store, "apps/things/ns/" + "é" * 1500, b""),
            put(store, "apps/things/ns/" + "x" * 2000, b""),
            return_exceptions=True,
        )
        assert [type(result).__name__ for result in results] == ["int", "TooLarge", "int"]
        assert await store.get("apps/things/\0") is None


async def test_an_epoch_begun_by_hand_after_a_restore_ends_what_was_seen_before(postgres_url: str) -> None:
    """As docs/howto/postgres.md says."""
    async with open_postgres(postgres_url) as store:
        seen = await put(store, "apps/things/a", b"1")
        db = await postgres_links.connect(postgres_links.parse(postgres_url))
        try:
            async with store.watch("", after=seen) as watch:
                await db.execute("SELECT raise_epoch(epoch, epoch, head + 1000000000) FROM clock")
                await store.fresh()
                with pytest.raises(Compacted):
                    watch.take()
        finally:
            await db.close()
        assert (await store.identity()).epoch == 2
        assert await put(store, "apps/things/a", b"2", seen) == seen + 1_000_000_001
    async with open_postgres(postgres_url) as store:
        with pytest.raises(Compacted):
            async with store.watch("", after=seen):
                pass
