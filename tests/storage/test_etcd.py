"""The store in etcd: what every store does, and what is particular to several replicas over one etcd."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from clusterling.storage import etcd
from clusterling.storage.backed import BackedStore
from clusterling.storage.cache import CacheBudget, CachedStore
from clusterling.storage.etcd.layout import INDEX_BITS
from clusterling.storage.guarded import Guarded
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.others import OTHERS
from clusterling.storage.store import (
    ABSENT,
    WRITE_OPS_MAX,
    Entry,
    Guard,
    GuardFailed,
    KeyExists,
    Op,
    RevisionConflict,
    StorageError,
    Store,
    Unavailable,
    UnknownOutcome,
)
from clusterling.testing.store_contract import PATIENCE_S, StoreContract, put, take, told
from tests.storage.etcd_server import Etcd, NoEtcd, running
from tests.storage.following import followed_to
from tests.storage.test_contract import crowded
from tests.storage.test_model import StoreMachine, finish

_roots = itertools.count()
MODEL_EXAMPLES = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    try:
        with running(tmp_path_factory.mktemp("etcd")) as server:
            yield server
    except NoEtcd as reason:
        pytest.skip(str(reason))


@pytest.fixture
def url(server: Etcd) -> str:
    """A store of its own, not made yet."""
    return new_url(server)


def new_url(server: Etcd) -> str:
    return server.url(f"test-{next(_roots)}")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class TestEtcd(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack, url: str) -> Store:
        return await stack.enter_async_context(etcd.open(url))


class TestCacheOverEtcd(StoreContract):
    @pytest.fixture
    async def store(self, stack: AsyncExitStack, url: str) -> Store:
        base = await crowded(await stack.enter_async_context(etcd.open(url)))
        await base.write([Op("root/fence", b"")])
        fenced = Keyspace(Guarded(base, "root/fence"), "mmmm")
        return await stack.enter_async_context(CachedStore(fenced))


async def of_etcd(stack: AsyncExitStack, url: str) -> Store:
    return await stack.enter_async_context(etcd.open(url))


async def of_cache_over_etcd(stack: AsyncExitStack, url: str) -> Store:
    below = Keyspace(await of_etcd(stack, url), "id")
    budget = CacheBudget(bytes_max=9000)
    return await stack.enter_async_context(CachedStore(below, finish=finish, budget=budget))


@pytest.mark.parametrize(
    ("make", "finished"),
    [(of_etcd, None), (of_cache_over_etcd, finish)],
    ids=["etcd", "cache"],
)
def test_etcd_does_what_the_model_does(
    server: Etcd,
    make: Callable[[AsyncExitStack, str], Awaitable[Store]],
    finished: Callable[[str, bytes, int], bytes] | None,
) -> None:
    async def fresh(stack: AsyncExitStack, _directory: Path) -> Store:
        return await make(stack, new_url(server))

    attributes: dict[str, Any] = {"make": staticmethod(fresh)}
    if finished is not None:
        attributes["finished"] = staticmethod(finished)
    run_state_machine_as_test(
        type("Machine", (StoreMachine,), attributes),
        settings=settings(
            max_examples=MODEL_EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


# Several replicas.


@pytest.fixture
async def replicas(stack: AsyncExitStack, url: str) -> Sequence[Store]:
    return [await stack.enter_async_context(etcd.open(url)) for _ in range(3)]


async def test_of_writers_in_several_replicas_exactly_one_wins(replicas: Sequence[Store]) -> None:
    for number in range(20):
        key = f"apps/things/ns/{number}"
        results = await asyncio.gather(
            *(put(store, key, b"", ABSENT) for store in replicas), return_exceptions=True
        )
        assert sum(isinstance(result, int) for result in results) == 1, results
        assert all(isinstance(result, int | StorageError) for result in results)


async def test_increments_through_several_replicas_lose_nothing(replicas: Sequence[Store]) -> None:
    await put(replicas[0], "apps/things/ns/n", b"0")

    async def increment(store: Store) -> None:
        while True:
            entry = await store.get("apps/things/ns/n")
            assert entry is not None
            try:
                await put(store, entry.key, str(int(entry.value) + 1).encode(), entry.revision)
            except RevisionConflict:
                continue
            return

    await asyncio.gather(*(increment(store) for store in replicas for _ in range(10)))
    entry = await replicas[0].get("apps/things/ns/n")
    assert entry is not None and entry.value == b"30"


async def test_all_replicas_tell_the_same_events_in_the_same_order(replicas: Sequence[Store]) -> None:
    async with AsyncExitStack() as watches:
        start = replicas[0].head()
        seen = [await watches.enter_async_context(store.watch("apps/", after=start)) for store in replicas]

        async def write(store: Store, replica: int) -> int:
            for number in range(60):
                key = f"apps/things/ns/{replica}-{number % 7}"
                await store.write([Op(key, str(number).encode()), Op(f"{key}-too", b"")])
                if number % 5 == 4:
                    await store.write([Op(key, None)])
            return 60 * 2 + 60 // 5

        writes = sum(await asyncio.gather(*(write(s, n) for s in replicas for n in (replicas.index(s),))))
        events = [told(await take(watch, writes)) for watch in seen]
    assert events[0] == events[1] == events[2]
    revisions = [revision for revision, _, _ in events[0]]
    assert revisions == sorted(set(revisions))


async def test_what_one_replica_has_acknowledged_another_reads(replicas: Sequence[Store]) -> None:
    one, two, three = replicas
    for number in range(50):
        revision = await put(one, "apps/things/ns/a", str(number).encode())
        entry = await two.get("apps/things/ns/a")
        assert entry is not None and entry.revision == revision
        assert await three.fresh() >= revision
        assert three.head() >= revision
        page = await two.list("apps/")
        assert [e.revision for e in page.entries] == [revision] and page.revision >= revision


async def test_a_barrier_is_shared_and_each_who_asks_gets_what_was_before_it(
    replicas: Sequence[Store],
) -> None:
    one, two, _ = replicas

    async def write_then_ask(number: int) -> None:
        revision = await put(one, f"apps/things/ns/{number}", b"")
        assert await two.fresh() >= revision
        async with two.watch("apps/", after=revision - 1) as watch:
            assert (batch := watch.take()) is not None and batch.events[0].revision == revision

    await asyncio.gather(*(write_then_ask(number) for number in range(100)))


async def test_a_drop_through_one_replica_hides_and_frees_keys_in_all(replicas: Sequence[Store]) -> None:
    one, two, _ = replicas
    first = await put(one, "apps/things/a/x", b"old", ABSENT)
    await one.drop("apps/things/a/")
    assert await two.get("apps/things/a/x") is None
    assert await two.count("apps/") == 0
    with pytest.raises(RevisionConflict):
        await put(two, "apps/things/a/x", b"late", first)
    second = await put(two, "apps/things/a/x", b"new", ABSENT)
    entry = await one.get("apps/things/a/x")
    assert entry is not None and (entry.value, entry.revision) == (b"new", second)


async def test_a_stale_footing_is_regained(replicas: Sequence[Store]) -> None:
    """Compactions and drops through one replica move what writers in another stand on: they go on all the same."""
    one, two, _ = replicas

    async def disturb() -> None:
        for number in range(15):
            await put(one, f"core/gone/{number}/x", b"")
            await one.drop(f"core/gone/{number}/")
            await one.compact(one.head() - 5)

    async def write() -> None:
        for number in range(120):
            await put(two, f"apps/things/ns/{number}", b"", ABSENT)

    await asyncio.gather(disturb(), write())
    assert await one.count("apps/") == 120
    assert await one.count("core/") == 0


async def alone_with(stack: AsyncExitStack, url: str) -> tuple[BackedStore, BackedStore]:
    one, two = [await stack.enter_async_context(etcd.open(url)) for _ in range(2)]
    await put(one, "apps/things/ns/first", b"")
    return one, two


def counted(store: BackedStore) -> Guard:
    assert store.others is not None
    return Guard(OTHERS, store.others())


async def test_what_depends_on_others_goes_through_until_another_replica_writes(
    stack: AsyncExitStack, url: str
) -> None:
    one, two = await alone_with(stack, url)
    guard = counted(one)
    for number in range(5):  # Alone, and by several in one batch.
        await asyncio.gather(
            *(
                one.write([Op(f"apps/things/ns/{number}-{i}", b"", ABSENT)], [guard])
                for i in range(number * 3)
            )
        )
    await put(two, "core/others/ns/a", b"")
    with pytest.raises(GuardFailed) as caught:
        await one.write([Op("apps/things/ns/late", b"")], [guard])
    assert caught.value.args == (OTHERS,)
    assert await one.get("apps/things/ns/late") is None
    assert counted(one) != guard
    await one.write([Op("apps/things/ns/late", b"")], [counted(one)])


async def test_of_a_batch_only_what_depends_on_others_is_refused_where_they_have_written(
    stack: AsyncExitStack, url: str
) -> None:
    one, two = await alone_with(stack, url)
    guard = counted(one)
    await put(two, "core/others/ns/a", b"")
    outcomes = await asyncio.gather(
        *(one.write([Op(f"apps/things/ns/{i}", b"", ABSENT)], [guard] if i % 2 else ()) for i in range(10)),
        one.write([Op("apps/things/ns/first", b"", ABSENT)], [guard]),
        return_exceptions=True,
    )
    assert [isinstance(outcome, GuardFailed) for outcome in outcomes] == [False, True] * 5 + [True]
    assert await two.count("apps/things/") == 6


async def test_a_write_that_others_refuse_is_refused_as_ever_beside_those_that_depend_on_none(
    stack: AsyncExitStack, url: str
) -> None:
    one, _ = await alone_with(stack, url)
    guard = counted(one)
    outcomes = await asyncio.gather(
        *(one.write([Op(f"apps/things/ns/{i}", b"", ABSENT)], [guard]) for i in range(4)),
        one.write([Op("apps/things/ns/first", b"", ABSENT)], [guard]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes[4:]] == [KeyExists]
    assert await one.count("apps/things/") == 5


async def test_who_depends_on_others_never_misses_a_write_of_theirs(stack: AsyncExitStack, url: str) -> None:
    """Two replicas increase a number in turn, one of them by what its watch has told it, and depending on others alone."""
    one, two = await alone_with(stack, url)
    await put(one, "apps/things/ns/sum", b"0")
    done = 0

    async def other() -> None:
        for _ in range(30):
            entry = await two.get("apps/things/ns/sum")
            assert entry is not None
            try:
                await put(two, entry.key, b"%d" % (int(entry.value) + 1), entry.revision)
            except RevisionConflict:
                pass
            else:
                nonlocal done
                done += 1
            await asyncio.sleep(0.005)

    async with one.watch("apps/", after=one.head() - 1) as watch, asyncio.TaskGroup() as group:
        group.create_task(other())
        told_last = 0
        for _ in range(100):
            guard = counted(one)
            while (batch := watch.take()) is not None:
                for event in batch.events:
                    if event.entry is not None and event.key.endswith("/sum"):
                        told_last = int(event.entry.value)
            await asyncio.sleep(0.001)  # In which the other may write.
            try:
                await one.write([Op("apps/things/ns/sum", b"%d" % (told_last + 1))], [guard])
            except GuardFailed:
                pass
            else:
                done += 1
    final = await one.get("apps/things/ns/sum")
    assert final is not None and int(final.value) == done
    guard = counted(one)
    await put(two, "apps/things/ns/sum", b"of the other")
    with pytest.raises(GuardFailed):
        await one.write([Op("apps/things/ns/sum", b"of its own")], [guard])


# What etcd's limits make particular.


async def test_more_conditions_than_etcd_takes_at_once_still_hold_together(replicas: Sequence[Store]) -> None:
    one, two, _ = replicas
    keys = [f"apps/things/ns/{number:03}" for number in range(WRITE_OPS_MAX)]
    fences = [f"core/fences/-/{number:03}" for number in range(WRITE_OPS_MAX)]
    revisions = await one.write([Op(key, b"one") for key in keys])
    guards = [
        Guard(key, revision)
        for key, revision in zip(fences, await one.write([Op(key, b"") for key in fences]), strict=True)
    ]
    ops = [
        Op(key, b"two", revision, expires_at=n)
        for n, (key, revision) in enumerate(zip(keys, revisions, strict=True))
    ]
    moved = await two.write(ops, guards)
    assert list(moved) == sorted(set(moved))
    assert len(await one.expired(1000, 1000)) == WRITE_OPS_MAX
    with pytest.raises(RevisionConflict):
        await two.write(ops, guards)
    await put(one, fences[-1], b"moved")
    with pytest.raises(GuardFailed):
        await two.write([Op(key, b"three") for key in keys], guards)


@pytest.mark.parametrize("refused", [0, 1, 3])
async def test_of_many_writes_at_once_those_that_may_not_happen_are_refused_alone(
    replicas: Sequence[Store], refused: int
) -> None:
    store = replicas[0]
    guard = Guard("ground/", await put(store, "ground/", b""))
    gone = Guard("ground/", guard.revision + 1)
    keys = [f"apps/{number}" for number in range(100)]
    before = dict(zip(keys, await asyncio.gather(*(put(store, key, b"1") for key in keys)), strict=True))
    wrong = {keys[17]: RevisionConflict, keys[71]: GuardFailed, keys[99]: RevisionConflict}
    wrong = dict(list(wrong.items())[:refused])
    results = await asyncio.gather(
        *(
            store.write(
                [Op(key, b"2", before[key] + (wrong.get(key) is RevisionConflict))],
                [gone if wrong.get(key) is GuardFailed else guard],
            )
            for key in keys
        ),
        return_exceptions=True,
    )
    assert {key: type(found) for key, found in zip(keys, results, strict=True) if key in wrong} == wrong
    now = {entry.key: entry.revision for entry in (await replicas[1].list("apps/")).entries}
    expected = {
        key: before[key] if isinstance(found, BaseException) else found[0]
        for key, found in zip(keys, results, strict=True)
    }
    assert now == expected


async def test_a_revision_beside_the_true_one_is_refused(replicas: Sequence[Store]) -> None:
    """Writes of one batch share etcd's revision; whoever names a neighbour's has not seen this key."""
    store = replicas[0]
    revisions = await store.write([Op(f"apps/things/ns/{n}", b"") for n in range(3)])
    for wrong in (revisions[0], revisions[2], revisions[1] + 100):
        with pytest.raises(RevisionConflict):
            await put(store, "apps/things/ns/1", b"", wrong)
        with pytest.raises(GuardFailed):
            await store.write([Op("apps/x/y/z", b"")], [Guard("apps/things/ns/1", wrong)])
    await put(store, "apps/things/ns/1", b"", revisions[1])


async def test_a_true_revision_of_another_key_of_the_same_batch_is_refused(replicas: Sequence[Store]) -> None:
    """The watch has told both, so that neither is looked at more closely than its own."""
    one, two, _ = replicas
    revisions = await one.write([Op(f"apps/things/ns/{n}", b"") for n in range(3)])
    for store in (one, two):
        await store.fresh()
        for n, revision in itertools.product(range(3), revisions):
            if revision != revisions[n]:
                with pytest.raises(RevisionConflict):
                    await put(store, f"apps/things/ns/{n}", b"late", revision)
                with pytest.raises(GuardFailed):
                    await store.write(
                        [Op("apps/things/ns/new", b"")], [Guard(f"apps/things/ns/{n}", revision)]
                    )
    moved = [await put(two, f"apps/things/ns/{n}", b"new", revisions[n]) for n in range(3)]
    with pytest.raises(RevisionConflict):
        await put(one, "apps/things/ns/0", b"late", revisions[0])
    await put(one, "apps/things/ns/0", b"newer", moved[0])


async def test_as_many_deletions_as_a_batch_takes_at_once_are_one_revision_of_etcds(
    replicas: Sequence[Store],
) -> None:
    one, *_ = replicas
    keys = [f"apps/things/ns/{n:03}" for n in range(WRITE_OPS_MAX)]
    revisions = await one.write([Op(key, b"") for key in keys])
    gone = await asyncio.gather(
        *(one.write([Op(key, None, revision)]) for key, revision in zip(keys, revisions, strict=True))
    )
    assert {revision >> INDEX_BITS for [revision] in gone} == {gone[0][0] >> INDEX_BITS}


async def test_lists_at_every_write_of_a_batch_are_exact(replicas: Sequence[Store]) -> None:
    store = replicas[0]
    for name in "abcdef":
        await put(store, f"apps/things/ns/{name}", b"old")
    revisions = await store.write(
        [
            Op("apps/things/ns/c", b"new"),
            Op("apps/things/ns/a", None),
            Op("apps/things/ns/aa", b"new"),
            Op("apps/things/ns/f", None),
        ]
    )
    expected = [
        "a=old b=old c=new d=old e=old f=old",
        "b=old c=new d=old e=old f=old",
        "aa=new b=old c=new d=old e=old f=old",
        "aa=new b=old c=new d=old e=old",
    ]
    for revision, shown in zip(revisions, expected, strict=True):
        for limit in (0, 1, 2, 3):
            entries: list[Entry] = []
            page = await replicas[1].list("apps/", revision=revision, limit=limit)
            entries += page.entries
            while limit and len(page.entries) == limit:
                page = await replicas[1].list("apps/", revision=revision, limit=limit, after=entries[-1].key)
                entries += page.entries
            assert " ".join(f"{e.key[15:]}={e.value.decode()}" for e in entries) == shown


async def test_a_replica_resumes_where_a_foreign_compaction_left_nothing_out(
    server: Etcd, stack: AsyncExitStack, url: str
) -> None:
    store = await stack.enter_async_context(etcd.open(url))
    revision = await put(store, "apps/things/ns/a", b"")
    other = await stack.enter_async_context(etcd.open(new_url(server)))
    for number in range(30):
        await put(other, "apps/things/ns/b", str(number).encode())
    await other.compact(other.head())
    await store.fresh()
    async with store.watch("apps/", after=revision) as watch:
        server.members[0].restart()
        again = await put_patiently(store, "apps/things/ns/a", b"again")
        assert [event.revision for event in await take(watch, 1)] == [again]


# etcd dies and comes back.


async def put_patiently(store: Store, key: str, value: bytes) -> int:
    async with asyncio.timeout(PATIENCE_S * 2):
        while True:
            try:
                return await put(store, key, value)
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_etcd_killed_during_writes_and_watches_loses_no_acknowledged_write(
    server: Etcd, stack: AsyncExitStack, url: str
) -> None:
    replicas = [await stack.enter_async_context(etcd.open(url)) for _ in range(2)]
    start = replicas[0].head()
    acknowledged: dict[int, tuple[str, bytes]] = {}
    unknown: list[tuple[str, bytes]] = []
    stop = asyncio.Event()

    async def write(store: Store, writer: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            key, value = f"apps/things/{writer}/{number}", b"%d" % number
            try:
                acknowledged[await put(store, key, value, ABSENT)] = key, value
            except UnknownOutcome:
                unknown.append((key, value))
            except Unavailable:
                assert await store_has_not(replicas[1], key)

    async with AsyncExitStack() as watches:
        seen = [await watches.enter_async_context(store.watch("apps/", after=start)) for store in replicas]
        writers = [
            asyncio.create_task(write(store, 10 * r + w))
            for r, store in enumerate(replicas)
            for w in range(4)
        ]
        following = [
            asyncio.create_task(followed_to(watch, "apps/things/end", after=start)) for watch in seen
        ]
        for _ in range(3):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.members[0].restart)
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*writers)
        await put_patiently(replicas[0], "apps/things/end", b"")
        async with asyncio.timeout(PATIENCE_S):
            events = [told(one) for one in await asyncio.gather(*following)]
    assert events[0] == events[1]
    happened = {revision: (key, value) for revision, key, value in events[0]}
    assert len(acknowledged) > 100
    assert acknowledged.items() <= happened.items()
    surplus = {revision: what for revision, what in happened.items() if revision not in acknowledged}
    assert set(surplus.values()) <= {*unknown, ("apps/things/end", b"")}
    page = await replicas[0].list("apps/")
    assert {e.revision: (e.key, e.value) for e in page.entries} == happened


async def store_has_not(store: Store, key: str) -> bool:
    """Whether the key is absent, as soon as the store can be asked."""
    async with asyncio.timeout(PATIENCE_S * 2):
        while True:
            try:
                return await store.get(key) is None
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_store_out_of_reach_refuses_and_comes_back(
    server: Etcd, stack: AsyncExitStack, url: str
) -> None:
    store = await stack.enter_async_context(etcd.open(url))
    before = await put(store, "apps/things/ns/a", b"")
    async with store.watch("apps/", after=before) as watch:
        server.members[0].pause()
        try:
            with pytest.raises((Unavailable, UnknownOutcome)):
                async with asyncio.timeout(PATIENCE_S * 2):
                    await store.fresh()
        finally:
            server.members[0].resume()
        after = await put_patiently(store, "apps/things/ns/a", b"again")
        assert [event.revision for event in await take(watch, 1)] == [after]
