"""What the cache promises beyond being a Store: that memory answers, work is shared, and bytes are bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from typing_extensions import override

from clusterling.storage import backed, memory, sqlite
from clusterling.storage import cache as cache_module
from clusterling.storage.backend import Lost, Sink
from clusterling.storage.cache import (
    GETS_BEFORE_LOAD,
    LOAD_PAGE_ENTRIES,
    RING_EVENTS_MAX,
    CacheBudget,
    CachedStore,
)
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.memory import MemoryBackend
from clusterling.storage.metered import MeteredStore
from clusterling.storage.store import Compacted, Entry, Event, Op, Page, Store, Unavailable
from clusterling.testing.store_contract import put, remove, take

THINGS = "apps/things/"


@dataclass
class Cached:
    below: MeteredStore
    cache: CachedStore
    finished: list[str]

    def calls(self, method: str) -> int:
        return self.below.figures.calls.get(method, 0)


@pytest.fixture
async def cached() -> AsyncIterator[Cached]:
    finished: list[str] = []

    def finish(key: str, value: bytes, revision: int) -> bytes:
        finished.append(key)
        return b"%s at %d" % (value, revision)

    async with memory.open() as base:
        below = MeteredStore(Keyspace(base, "mine"))
        async with CachedStore(below, finish=finish) as cache:
            yield Cached(below, cache, finished)


class Behind(MemoryBackend):
    """A backend whose changes are told a moment after they can be read, as over a network."""

    @override
    def follow(self, sink: Sink, lost: Lost) -> None:
        def later(events: Sequence[Event], revision: int) -> None:
            asyncio.get_running_loop().call_later(0.05, sink, events, revision)

        super().follow(later, lost)


async def test_a_watch_of_a_collection_read_ahead_of_its_changes_waits_for_them() -> None:
    async with backed.serve(Behind()) as base, CachedStore(base) as cache:
        await put(base, f"{THINGS}ns/a", b"told")
        revision = await base.fresh()
        untold = await put(base, f"{THINGS}ns/b", b"not told yet")
        assert base.head() == revision < untold
        async with cache.watch(THINGS, after=revision) as watch:
            assert [event.revision for event in await take(watch, 1)] == [untold]


async def test_an_entry_is_finished_once_and_the_same_until_written_again(cached: Cached) -> None:
    revision = await put(cached.below, f"{THINGS}ns/a", b"one")
    entry = (await cached.cache.list(THINGS)).entries[0]
    assert entry.value == b"one at %d" % revision
    assert await cached.cache.get(entry.key) is entry is cached.cache.peek(entry.key)
    assert (await cached.cache.list(f"{THINGS}ns/")).entries[0] is entry
    async with cached.cache.watch(THINGS, after=cached.cache.head()) as watch:
        again = await put(cached.cache, entry.key, b"two")
        [event] = await take(watch, 1)
    assert event.previous() is entry
    assert event.entry is cached.cache.peek(entry.key) is not entry
    assert event.entry is not None and event.entry.value == b"two at %d" % again
    assert cached.finished == [entry.key] * 2


async def test_once_loaded_nothing_is_asked_below(cached: Cached) -> None:
    for n in range(5):
        await put(cached.below, f"{THINGS}{n % 2}/{n}", b"")
    await cached.cache.list(THINGS)
    before = dict(cached.below.figures.calls)
    for n in range(5):
        assert await cached.cache.get(f"{THINGS}{n % 2}/{n}")
    assert len((await cached.cache.list(f"{THINGS}0/", limit=2)).entries) == 2
    assert await cached.cache.count(THINGS) == 5
    async with (
        cached.cache.watch(THINGS, after=cached.cache.head()),
        cached.cache.watch(f"{THINGS}1/", after=2),
    ):
        pass
    after = cached.below.figures.calls
    assert {m for m in after if after[m] != before.get(m)} <= {"fresh", "watch"}


async def test_concurrent_first_users_share_one_load(cached: Cached) -> None:
    await put(cached.below, f"{THINGS}ns/a", b"")
    pages = await asyncio.gather(*(cached.cache.list(THINGS) for _ in range(20)))
    assert cached.calls("list") == 1
    assert all(page.entries[0] is pages[0].entries[0] for page in pages)


async def test_the_first_user_may_leave_and_the_others_are_served(cached: Cached) -> None:
    for n in range(3000):  # Enough for the load to be cut into slices.
        if n % 100 == 0:
            await cached.below.write([Op(f"{THINGS}ns/{m}", b"") for m in range(n, n + 100)])
    first, *others = [asyncio.create_task(cached.cache.list(THINGS)) for _ in range(4)]
    await asyncio.sleep(0)
    first.cancel()
    pages = await asyncio.gather(*others)
    assert [len(page.entries) for page in pages] == [3000] * 3


async def test_a_few_single_gets_do_not_load_a_collection(cached: Cached) -> None:
    await put(cached.below, f"{THINGS}ns/a", b"")
    for _ in range(GETS_BEFORE_LOAD):
        assert await cached.cache.get(f"{THINGS}ns/a") is not None
    assert not cached.cache.is_loaded(THINGS) and cached.calls("list") == 0
    assert await cached.cache.get(f"{THINGS}ns/a") is cached.cache.peek(f"{THINGS}ns/a")
    assert cached.cache.is_loaded(f"{THINGS}ns/a") and cached.calls("list") == 1


async def test_what_is_not_loaded_is_not_peeked(cached: Cached) -> None:
    await put(cached.below, f"{THINGS}ns/a", b"")
    assert cached.cache.peek(f"{THINGS}ns/a") is None and cached.cache.last_change(THINGS) is None
    await cached.cache.list(THINGS)
    assert cached.cache.peek(f"{THINGS}ns/a") is not None and cached.cache.peek(f"{THINGS}ns/b") is None


async def test_last_change_is_the_collections_own(cached: Cached) -> None:
    await cached.cache.list(THINGS)
    mine = await put(cached.cache, f"{THINGS}ns/a", b"")
    await put(cached.cache, "apps/others/ns/a", b"")
    assert cached.cache.last_change(THINGS) == mine
    page = await cached.cache.list(THINGS)
    assert page.last_change == mine < page.revision
    gone = await remove(cached.cache, f"{THINGS}ns/a")
    assert cached.cache.last_change(THINGS) == gone


async def test_an_older_list_is_served_from_memory_while_nothing_has_changed(cached: Cached) -> None:
    await put(cached.cache, f"{THINGS}ns/a", b"")
    page = await cached.cache.list(THINGS)
    await put(cached.cache, "apps/others/ns/a", b"")
    await cached.cache.compact(cached.cache.head())
    lists = cached.calls("list")
    again = await cached.cache.list(THINGS, revision=page.revision)
    assert again.revision == page.revision and again.entries == page.entries
    assert cached.calls("list") == lists
    async with cached.cache.watch(THINGS, after=page.revision) as watch:
        revision = await put(cached.cache, f"{THINGS}ns/b", b"")
        assert [event.revision for event in await take(watch, 1)] == [revision]
    with pytest.raises(Compacted):
        await cached.cache.list(THINGS, revision=page.revision)


async def test_an_older_list_shares_the_entries_that_are_still_current(cached: Cached) -> None:
    await put(cached.cache, f"{THINGS}ns/a", b"old")
    await put(cached.cache, f"{THINGS}ns/b", b"")
    page = await cached.cache.list(THINGS)
    await put(cached.cache, f"{THINGS}ns/a", b"new")
    old = (await cached.cache.list(THINGS, revision=page.revision)).entries
    assert list(old) == list(page.entries)
    assert old[1] is page.entries[1]


async def test_a_watch_resumes_from_memory_after_compaction(cached: Cached) -> None:
    await cached.cache.list(THINGS)
    revisions = [await put(cached.cache, f"{THINGS}ns/{n}", b"") for n in range(20)]
    await cached.cache.compact(cached.cache.head())
    for prefix in (THINGS, f"{THINGS}ns/"):
        async with cached.cache.watch(prefix, after=revisions[4]) as watch:
            assert [event.revision for event in await take(watch, 15)] == revisions[5:]


async def test_watchers_of_one_prefix_share_batches_and_namespaces_see_their_own(cached: Cached) -> None:
    start = cached.cache.head()
    async with (
        cached.cache.watch(THINGS, after=start) as all_one,
        cached.cache.watch(THINGS, after=start) as all_two,
        cached.cache.watch(f"{THINGS}a/", after=start) as a_one,
        cached.cache.watch(f"{THINGS}a/", after=start) as a_two,
    ):
        await cached.cache.write([Op(f"{THINGS}a/x", b""), Op(f"{THINGS}b/x", b"")])
        wide = all_one.take()
        narrow = a_one.take()
        assert wide is not None and wide is all_two.take() and len(wide.events) == 2
        assert narrow is not None and narrow is a_two.take() and len(narrow.events) == 1
        assert narrow.events[0] is wide.events[0]


async def test_a_slow_watcher_is_told_to_list_again(cached: Cached) -> None:
    async with cached.cache.watch(THINGS, after=cached.cache.head()) as slow:
        for begin in range(0, RING_EVENTS_MAX + 200, 100):
            await cached.cache.write([Op(f"{THINGS}ns/{n}", b"") for n in range(begin, begin + 100)])
        with pytest.raises(Compacted):
            slow.take()


async def test_a_dropped_range_empties_what_is_in_memory(cached: Cached) -> None:
    await put(cached.cache, f"{THINGS}a/x", b"")
    await put(cached.cache, f"{THINGS}b/x", b"")
    await cached.cache.list(THINGS)
    await cached.cache.drop(f"{THINGS}a/")
    assert cached.cache.peek(f"{THINGS}a/x") is None and cached.cache.peek(f"{THINGS}b/x") is not None
    await cached.cache.drop("apps/")
    assert await cached.cache.count(THINGS) == 0 and cached.cache.is_loaded(THINGS)


async def test_memory_is_bounded_and_the_least_recently_used_goes() -> None:
    budget = CacheBudget(bytes_max=200_000)
    async with memory.open() as base, AsyncExitStack() as stack:
        caches = [
            await stack.enter_async_context(CachedStore(Keyspace(base, f"c{n}"), budget=budget))
            for n in range(20)
        ]
        for cache in caches:
            await cache.write([Op(f"{THINGS}ns/{n}", b"x" * 1000) for n in range(20)])
        for cache in caches:
            await cache.list(THINGS)
            assert await caches[0].get(f"{THINGS}ns/0") is not None
            assert budget.bytes <= budget.bytes_max
        loaded = [cache.is_loaded(THINGS) for cache in caches]
        assert loaded[0] and loaded[-1] and 3 <= sum(loaded) <= 8
        for cache in caches:
            assert len((await cache.list(THINGS)).entries) == 20
        for cache in caches:
            await cache.close()
        assert budget.bytes == 0


async def test_what_is_watched_stays_and_what_was_evicted_comes_back_current() -> None:
    budget = CacheBudget(bytes_max=60_000)
    async with memory.open() as base, CachedStore(base, budget=budget) as cache:
        for group in range(8):
            await cache.write([Op(f"g{group}/things/ns/{n}", b"x" * 1000) for n in range(20)])
        async with cache.watch("g0/things/", after=cache.head()) as watch:
            for group in range(1, 8):
                await cache.list(f"g{group}/things/")
            assert cache.is_loaded("g0/things/") and not cache.is_loaded("g1/things/")
            revision = await put(cache, "g0/things/ns/0", b"new")
            assert [event.revision for event in await take(watch, 1)] == [revision]
        await put(cache, "g1/things/ns/0", b"new")
        entry = (await cache.list("g1/things/")).entries[0]
        assert entry.value == b"new"


async def test_growth_counts_against_the_budget() -> None:
    budget = CacheBudget(bytes_max=200_000)
    async with memory.open() as base, CachedStore(base, budget=budget) as cache:
        await cache.list("g0/things/")
        await cache.list("g1/things/")
        for n in range(150):
            await put(cache, f"g1/things/ns/{n}", b"x" * 1000)
        assert not cache.is_loaded("g0/things/")
        for n in range(150):
            await remove(cache, f"g1/things/ns/{n}")
        assert budget.bytes < 400_000


class FallingBehind(MeteredStore):
    """A store whose watches end after a while, as those of a process that could not keep up."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.lists_at_once = asyncio.Event()
        self.lists_at_once.set()

    @override
    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        page = await super().list(prefix, after=after, limit=limit, revision=revision)
        await self.lists_at_once.wait()
        return page


async def test_what_happens_while_a_collection_loads_is_in_it() -> None:
    async with memory.open() as base:
        below = FallingBehind(base)
        async with CachedStore(below) as cache:
            for name in "abc":
                await put(below, f"{THINGS}ns/{name}", b"old")
            below.lists_at_once.clear()
            loading = asyncio.create_task(cache.list(THINGS))
            await asyncio.sleep(0)
            await put(below, f"{THINGS}ns/b", b"new")
            await remove(below, f"{THINGS}ns/c")
            await put(below, f"{THINGS}ns/d", b"new")
            below.lists_at_once.set()
            assert [(e.key[-1], e.value) for e in (await loading).entries] == [
                ("a", b"old"),
                ("b", b"new"),
                ("d", b"new"),
            ]


async def test_a_collection_that_changes_too_fast_to_load_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with memory.open() as base:
        below = FallingBehind(base)
        async with CachedStore(below) as cache:
            below.lists_at_once.clear()
            loading = asyncio.create_task(cache.list(THINGS))
            await asyncio.sleep(0)
            for begin in range(0, 10_300, 100):
                await below.write([Op(f"{THINGS}ns/{n % 500:03}", b"") for n in range(begin, begin + 100)])
            below.lists_at_once.set()
            assert len((await loading).entries) == 500
            assert below.figures.calls["list"] == 2


async def test_when_the_store_closes_watches_end_and_reads_are_refused() -> None:
    async with memory.open() as base:
        cache = CachedStore(base)
        await put(cache, f"{THINGS}ns/a", b"")
        await cache.list(THINGS)
        place = cache.watch(THINGS, after=cache.head())
        watch = await place.__aenter__()
    with pytest.raises(Unavailable):
        watch.take()
    with pytest.raises(Unavailable):
        await cache.list(THINGS)
    await place.__aexit__(None, None, None)
    await cache.close()


async def test_a_closed_cache_leaves_nothing_behind_in_the_feed() -> None:
    async with memory.open() as base:
        figures = MeteredStore(base)
        cache = CachedStore(figures)
        for unit in ("a/b/", "a/c/"):
            await cache.list(unit)
        assert figures.figures.watches == 2
        async with cache.watch("a/b/", after=cache.head()) as watch:
            await cache.close()
            with pytest.raises(Unavailable):
                watch.take()
        assert figures.figures.watches == 0
        with pytest.raises(Unavailable):
            await cache.list("a/b/")


async def test_evicted_units_let_go_of_their_watches() -> None:
    async with memory.open() as base:
        figures = MeteredStore(base)
        async with CachedStore(figures, budget=CacheBudget(bytes_max=10_000)) as cache:
            for n in range(50):
                await cache.list(f"g/r{n}/")
            assert figures.figures.watches <= 4


async def test_keys_without_a_unit_pass_through(cached: Cached) -> None:
    await put(cached.cache, "fence", b"f")
    await put(cached.cache, "a/fence", b"f")
    entry = await cached.cache.get("fence")
    assert entry is not None and entry.value.startswith(b"f at")
    page = await cached.cache.list("")
    assert [e.key for e in page.entries] == ["a/fence", "fence"]
    assert all(e.value.startswith(b"f at") for e in page.entries)
    async with cached.cache.watch("", after=2) as watch:
        [event] = await take(watch, 1)
        assert event.entry is not None and event.entry.value.startswith(b"f at")


async def test_units_are_the_first_two_segments() -> None:
    names: Sequence[tuple[str, str]] = [
        ("apps/things/ns/a", "apps/things/"),
        ("apps/things/", "apps/things/"),
        ("apps/things", ""),
        ("apps/", ""),
        ("apps", ""),
        ("", ""),
    ]
    for key, unit in names:
        assert cache_module.unit_of(key) == unit


async def test_a_collection_of_many_pages_is_loaded_whole_while_it_changes(tmp_path: Path) -> None:
    async with sqlite.open(tmp_path / "state.db") as base, CachedStore(Keyspace(base, "mine")) as cache:
        for begin in range(0, 2 * LOAD_PAGE_ENTRIES + 300, 100):
            await cache.write([Op(f"{THINGS}ns/{n:05}", b"old") for n in range(begin, begin + 100)])
        loaded = asyncio.Event()

        async def change() -> None:
            step = 0
            while not loaded.is_set():
                step += 1
                await cache.write(
                    [
                        Op(f"{THINGS}ns/{step * 37 % 4000:05}", b"new"),
                        Op(f"{THINGS}ns/{step * 41 % 4000:05}-{step}", b"created"),
                    ]
                )

        changing = asyncio.create_task(change())
        await asyncio.sleep(0.01)
        page = await cache.list(THINGS)
        loaded.set()
        await changing
        assert shown(page.entries) == shown(
            (await base.list(f"mine/{THINGS}", revision=page.revision)).entries, cut=5
        )
        now = await base.list(f"mine/{THINGS}")
        assert shown((await cache.list(THINGS)).entries) == shown(now.entries, cut=5)


def shown(entries: Sequence[Entry], *, cut: int = 0) -> list[tuple[str, bytes, int]]:
    return [(entry.key[cut:], entry.value, entry.revision) for entry in entries]
