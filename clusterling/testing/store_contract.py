"""What it means to be a Store. A backend or a wrapper is done when its subclass of StoreContract passes.

    class TestSqlite(StoreContract):
        @pytest.fixture
        async def store(self, tmp_path):
            async with sqlite.open(tmp_path / "state.db") as store:
                yield store

The store given may hold other keys than the contract's, all of which lie under `apps/` and `core/`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from clusterling.storage.others import OTHERS
from clusterling.storage.store import (
    ABSENT,
    VALUE_BYTES_MAX,
    WRITE_OPS_MAX,
    Batch,
    Compacted,
    Entry,
    Event,
    FutureRevision,
    Guard,
    GuardFailed,
    KeyExists,
    Limit,
    LimitReached,
    Measure,
    Op,
    RevisionConflict,
    StorageError,
    Store,
    TooLarge,
    Watch,
)

PATIENCE_S = 20.0  # An event that takes longer than this is lost, not late.
THINGS = "apps/things/"


async def put(store: Store, key: str, value: bytes, expected: int | None = None) -> int:
    [revision] = await store.write([Op(key, value, expected)])
    return revision


async def remove(store: Store, key: str, expected: int | None = None) -> int:
    [revision] = await store.write([Op(key, None, expected)])
    return revision


async def take(watch: Watch, count: int) -> list[Event]:
    """The next `count` events. More than that in the same batch is a failure of the test that asks for them."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(events) < count:
            events += (await anext(watch)).events
    assert len(events) == count, events
    return events


def told(events: Sequence[Event]) -> list[tuple[int, str, bytes | None]]:
    return [(event.revision, event.key, event.entry.value if event.entry else None) for event in events]


def shown(entries: Sequence[Entry]) -> list[tuple[str, bytes]]:
    return [(entry.key, entry.value) for entry in entries]


async def used(store: Store, prefix: str = "apps/") -> tuple[int, int]:
    """Objects and bytes under a prefix."""
    usage = await store.usage(prefix)
    assert all(one.collection.startswith(prefix) for one in usage)
    return sum(one.objects for one in usage), sum(one.bytes for one in usage)


async def at_most(store: Store, prefix: str, *, objects: int | None = None, size: int | None = None) -> Limit:
    """A limit of so many more than there are."""
    there = await used(store, prefix)
    if objects is not None:
        return Limit(prefix, Measure.OBJECTS, there[0] + objects)
    assert size is not None, "one of the two is limited"
    return Limit(prefix, Measure.BYTES, there[1] + size)


class StoreContract:
    # Writing.

    async def test_what_was_written_is_read_with_its_revision(self, store: Store) -> None:
        revision = await put(store, "apps/things/ns/a", b"one")
        entry = await store.get("apps/things/ns/a")
        assert entry == Entry("apps/things/ns/a", b"one", revision)

    async def test_a_key_never_written_is_none(self, store: Store) -> None:
        assert await store.get("apps/things/ns/a") is None

    async def test_revisions_rise_from_above_zero(self, store: Store) -> None:
        head = store.head()
        assert head > 0
        first = await put(store, "apps/things/ns/a", b"1")
        second = await put(store, "core/others/ns/a", b"2")
        third = await remove(store, "apps/things/ns/a")
        assert head < first < second < third <= store.head()

    async def test_create_refuses_a_key_that_exists(self, store: Store) -> None:
        await put(store, "apps/things/ns/a", b"one", ABSENT)
        with pytest.raises(KeyExists):
            await put(store, "apps/things/ns/a", b"two", ABSENT)
        entry = await store.get("apps/things/ns/a")
        assert entry is not None and entry.value == b"one"

    async def test_a_deleted_key_can_be_created_again(self, store: Store) -> None:
        first = await put(store, "apps/things/ns/a", b"one", ABSENT)
        await remove(store, "apps/things/ns/a", first)
        assert await store.get("apps/things/ns/a") is None
        second = await put(store, "apps/things/ns/a", b"two", ABSENT)
        assert second > first

    @pytest.mark.parametrize("value", [b"new", None])
    async def test_a_stale_writer_loses(self, store: Store, value: bytes | None) -> None:
        stale = await put(store, "apps/things/ns/a", b"one")
        current = await put(store, "apps/things/ns/a", b"two", stale)
        with pytest.raises(RevisionConflict):
            await store.write([Op("apps/things/ns/a", value, stale)])
        entry = await store.get("apps/things/ns/a")
        assert entry == Entry("apps/things/ns/a", b"two", current)

    @pytest.mark.parametrize("value", [b"new", None])
    async def test_a_revision_expected_of_an_absent_key_is_a_conflict(
        self, store: Store, value: bytes | None
    ) -> None:
        first = await put(store, "apps/things/ns/a", b"one")
        await remove(store, "apps/things/ns/a")
        with pytest.raises(RevisionConflict):
            await store.write([Op("apps/things/ns/a", value, first)])

    @pytest.mark.parametrize("expected", [None, ABSENT])
    async def test_deleting_what_is_not_there_is_a_conflict(self, store: Store, expected: int | None) -> None:
        with pytest.raises(RevisionConflict):
            await remove(store, "apps/things/ns/a", expected)

    async def test_an_unconditional_write_overwrites(self, store: Store) -> None:
        await put(store, "apps/things/ns/a", b"one")
        await put(store, "apps/things/ns/a", b"two")
        entry = await store.get("apps/things/ns/a")
        assert entry is not None and entry.value == b"two"

    @pytest.mark.parametrize("value", [b"", b"{}", b"\x01\x00\xff\xfe sealed", "ü€😀".encode()])
    async def test_values_are_kept_byte_for_byte(self, store: Store, value: bytes) -> None:
        await put(store, "core/others/-/a", value)
        entry = await store.get("core/others/-/a")
        assert entry is not None and entry.value == value
        page = await store.list("core/others/")
        assert shown(page.entries) == [("core/others/-/a", value)]

    async def test_the_largest_value_fits_and_one_byte_more_does_not(self, store: Store) -> None:
        await put(store, "apps/things/ns/a", b"x" * VALUE_BYTES_MAX)
        with pytest.raises(TooLarge):
            await put(store, "apps/things/ns/a", b"y" * (VALUE_BYTES_MAX + 1))
        page = await store.list(THINGS)
        assert shown(page.entries) == [("apps/things/ns/a", b"x" * VALUE_BYTES_MAX)]

    async def test_of_concurrent_writers_exactly_one_wins(self, store: Store) -> None:
        base = await put(store, "apps/things/ns/a", b"")
        writes = (put(store, "apps/things/ns/a", bytes([n]), base) for n in range(8))
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["RevisionConflict"] * 7 + ["int"]

    async def test_concurrent_writers_of_many_keys_all_win_with_revisions_of_their_own(
        self, store: Store
    ) -> None:
        keys = [f"apps/things/ns/{n:03}" for n in range(250)]
        revisions = await asyncio.gather(*(put(store, key, key.encode(), ABSENT) for key in keys))
        assert len(set(revisions)) == len(keys)
        page = await store.list(THINGS)
        assert [(e.key, e.revision) for e in page.entries] == list(zip(keys, revisions, strict=True))

    async def test_concurrent_increments_lose_nothing(self, store: Store) -> None:
        await put(store, "apps/things/ns/a", b"0")

        async def increment() -> None:
            while True:
                entry = await store.get("apps/things/ns/a")
                assert entry is not None
                try:
                    await put(store, entry.key, str(int(entry.value) + 1).encode(), entry.revision)
                except RevisionConflict:
                    continue
                return

        await asyncio.gather(*(increment() for _ in range(20)))
        entry = await store.get("apps/things/ns/a")
        assert entry is not None and entry.value == b"20"

    async def test_a_writer_that_leaves_disturbs_no_other(self, store: Store) -> None:
        writers = [asyncio.create_task(put(store, f"apps/things/ns/{n:02}", b"v", ABSENT)) for n in range(40)]
        await asyncio.sleep(0)
        for writer in writers[::2]:
            writer.cancel()
        results = await asyncio.gather(*writers, return_exceptions=True)
        assert all(isinstance(result, int) for result in results[1::2])
        keys = {entry.key for entry in (await store.list(THINGS)).entries}
        assert keys >= {f"apps/things/ns/{n:02}" for n in range(1, 40, 2)}
        assert await put(store, "apps/things/ns/after", b"v", ABSENT) == (await store.list(THINGS)).revision

    # Several ops, and guards.

    async def test_ops_of_one_write_take_rising_revisions_in_their_order(self, store: Store) -> None:
        first = await put(store, "apps/things/ns/b", b"old")
        revisions = await store.write(
            [
                Op("core/others/ns/z", b"z", ABSENT),
                Op("apps/things/ns/b", None, first),
                Op("apps/things/ns/a", b"a"),
            ]
        )
        assert first < revisions[0] < revisions[1] < revisions[2]
        assert await store.get("core/others/ns/z") == Entry("core/others/ns/z", b"z", revisions[0])
        assert await store.get("apps/things/ns/b") is None
        assert await store.get("apps/things/ns/a") == Entry("apps/things/ns/a", b"a", revisions[2])

    async def test_one_refused_op_refuses_all(self, store: Store) -> None:
        await put(store, "apps/things/ns/c", b"there")
        before = (await store.list(THINGS)).entries
        with pytest.raises(KeyExists):
            await store.write([Op("apps/things/ns/a", b"a", ABSENT), Op("apps/things/ns/c", b"c", ABSENT)])
        with pytest.raises(RevisionConflict):
            await store.write([Op("apps/things/ns/a", b"a", ABSENT), Op("apps/things/ns/d", None)])
        assert (await store.list(THINGS)).entries == before

    async def test_as_many_ops_as_allowed_happen_together(self, store: Store) -> None:
        ops = [Op(f"apps/things/ns/{n:03}", b"v", ABSENT) for n in range(WRITE_OPS_MAX)]
        revisions = await store.write(ops)
        assert list(revisions) == sorted(set(revisions)) and len(revisions) == WRITE_OPS_MAX
        assert await store.count(THINGS) == WRITE_OPS_MAX

    async def test_a_guard_that_holds_lets_the_write_through(self, store: Store) -> None:
        fence = await put(store, "core/others/-/fence", b"")
        await store.write(
            [Op("apps/things/ns/a", b"a", ABSENT)],
            [Guard("core/others/-/fence", fence), Guard("core/others/-/none", ABSENT)],
        )
        assert await store.get("apps/things/ns/a") is not None

    @pytest.mark.parametrize("change", ["rewritten", "deleted", "created"])
    async def test_a_guard_that_fails_names_its_key_and_nothing_is_written(
        self, store: Store, change: str
    ) -> None:
        fence = await put(store, "core/others/-/fence", b"")
        guard = Guard("core/others/-/fence", fence)
        if change == "rewritten":
            await put(store, guard.key, b"new")
        elif change == "deleted":
            await remove(store, guard.key)
        else:
            guard = Guard(guard.key, ABSENT)
        with pytest.raises(GuardFailed) as caught:
            await store.write([Op("apps/things/ns/a", b"a")], [guard])
        assert caught.value.args[0] == guard.key
        assert await store.get("apps/things/ns/a") is None

    async def test_what_depends_on_a_count_of_others_that_never_was_is_refused(self, store: Store) -> None:
        """By stores that count them, and by those that do not (`storage/others.py`); alone and beside what may happen."""
        results = await asyncio.gather(
            store.write([Op("apps/things/ns/a", b"", ABSENT)], [Guard(OTHERS, 1 << 40)]),
            store.write([Op("apps/things/ns/b", b"", ABSENT)]),
            return_exceptions=True,
        )
        assert isinstance(results[0], GuardFailed) and results[0].args == (OTHERS,), results
        with pytest.raises(GuardFailed):
            await store.write([Op("apps/things/ns/a", b"")], [Guard(OTHERS, 1 << 40)])
        page = await store.list("apps/things/")
        assert [entry.key for entry in page.entries] == ["apps/things/ns/b"]

    async def test_a_guard_may_be_on_a_key_that_the_write_changes(self, store: Store) -> None:
        first = await put(store, "apps/things/ns/a", b"one")
        await store.write([Op("apps/things/ns/a", b"two", first)], [Guard("apps/things/ns/a", first)])
        with pytest.raises(GuardFailed):
            await store.write([Op("apps/things/ns/a", b"three")], [Guard("apps/things/ns/a", first)])

    async def test_of_two_that_guard_against_each_other_one_wins(self, store: Store) -> None:
        for number in range(20):
            one, two = f"apps/things/ns/{number}-one", f"apps/things/ns/{number}-two"
            results = await asyncio.gather(
                store.write([Op(one, b"", ABSENT)], [Guard(two, ABSENT)]),
                store.write([Op(two, b"", ABSENT)], [Guard(one, ABSENT)]),
                return_exceptions=True,
            )
            assert sum(isinstance(result, GuardFailed) for result in results) == 1, results
            assert sum(not isinstance(result, BaseException) for result in results) == 1, results

    async def test_a_refused_write_fails_none_of_those_beside_it(self, store: Store) -> None:
        await put(store, "apps/things/ns/taken", b"")
        results = await asyncio.gather(
            *(
                put(store, "apps/things/ns/taken" if n % 3 == 0 else f"apps/things/ns/{n}", b"", ABSENT)
                for n in range(60)
            ),
            return_exceptions=True,
        )
        assert [isinstance(result, KeyExists) for result in results] == [n % 3 == 0 for n in range(60)]

    # Reading.

    async def test_a_list_is_in_code_point_order_and_keeps_to_its_prefix(self, store: Store) -> None:
        names = ["a", "a-b", "a.b", "a0", "ab", "b", "é", "z", "\uffee", "😀"]
        for name in random.Random(7).sample(names, len(names)):
            await put(store, f"apps/things/ns/{name}", name.encode())
        for outside in ("apps/thing/ns/a", "apps/things-2/ns/a", "apps/things0/ns/a", "apps/thingt/ns/a"):
            await put(store, outside, b"outside")
        page = await store.list(THINGS)
        assert [entry.key for entry in page.entries] == [f"apps/things/ns/{name}" for name in sorted(names)]

    async def test_narrower_and_wider_prefixes_see_their_part(self, store: Store) -> None:
        keys = ["apps/things/a-b/x", "apps/things/a/x", "apps/things/a/y", "core/others/a/x"]
        for key in keys:
            await put(store, key, b"")
        assert [e.key for e in (await store.list("apps/things/a/")).entries] == keys[1:3]
        assert [e.key for e in (await store.list("apps/things/a-b/")).entries] == keys[:1]
        assert [e.key for e in (await store.list("apps/")).entries] == keys[:3]
        assert {e.key for e in (await store.list("")).entries} >= set(keys)

    async def test_counts_follow_writes(self, store: Store) -> None:
        assert await store.count(THINGS) == 0
        for name in ("a", "b", "c"):
            await put(store, f"apps/things/{name}/x", b"")
        await remove(store, "apps/things/b/x")
        assert await store.count(THINGS) == 2
        assert await store.count("apps/things/a/") == 1
        assert await store.count("apps/") == 2

    async def test_pages_cover_everything_once_and_count_what_remains(self, store: Store) -> None:
        keys = [f"apps/things/ns/{n:02}" for n in range(10)]
        for key in keys:
            await put(store, key, key.encode())
        page = await store.list(THINGS, limit=4)
        assert [entry.key for entry in page.entries] == keys[:4]
        assert page.remaining in {6, None}
        rest = await store.list(THINGS, after=keys[3], revision=page.revision)
        assert [entry.key for entry in rest.entries] == keys[4:] and rest.remaining in {0, None}
        beyond = await store.list(THINGS, after=keys[-1], limit=4, revision=page.revision)
        assert list(beyond.entries) == [] and beyond.remaining in {0, None}

    async def test_pages_show_one_snapshot(self, store: Store) -> None:
        for name in ("a", "b", "c", "d"):
            await put(store, f"apps/things/ns/{name}", b"old")
        page = await store.list(THINGS, limit=1)
        await put(store, "apps/things/ns/b", b"new")
        await put(store, "apps/things/ns/b", b"newer")
        await remove(store, "apps/things/ns/c")
        await put(store, "apps/things/ns/cc", b"created")
        await remove(store, "apps/things/ns/d")
        await put(store, "apps/things/ns/d", b"created again")
        rest = await store.list(THINGS, after=page.entries[-1].key, revision=page.revision)
        assert rest.revision == page.revision
        assert shown(rest.entries) == [(f"apps/things/ns/{name}", b"old") for name in ("b", "c", "d")]

    async def test_pages_stay_on_their_snapshot_while_everything_is_rewritten(self, store: Store) -> None:
        rng = random.Random(13)
        keys = [f"apps/things/ns/{n:03}" for n in range(200)]
        for start in range(0, len(keys), WRITE_OPS_MAX):
            await store.write([Op(key, b"old") for key in keys[start : start + WRITE_OPS_MAX]])
        await store.write([Op(key, None) for key in keys[50:80]])
        expected = keys[:50] + keys[80:]
        page = await store.list(THINGS, limit=7)
        seen = list(page.entries)
        while len(page.entries) == 7:
            for key in rng.sample(keys, 12):
                there = await store.get(key) is not None
                await store.write([Op(key, None if there and rng.random() < 0.5 else b"new")])
            await store.write([Op(f"apps/things/ns/{rng.randrange(200):03}-new", b"new")])
            page = await store.list(THINGS, after=seen[-1].key, limit=7, revision=page.revision)
            seen += page.entries
        assert shown(seen) == [(key, b"old") for key in expected]

    async def test_every_state_since_the_beginning_can_be_listed(self, store: Store) -> None:
        rng = random.Random(11)
        states = [(store.head(), dict[str, bytes]())]
        for number in range(60):
            state = dict(states[-1][1])
            key = f"apps/things/{rng.choice('ab')}/{rng.choice('xyz')}"
            if key in state and rng.random() < 0.4:
                revision = await remove(store, key)
                del state[key]
            else:
                state[key] = str(number).encode()
                revision = await put(store, key, state[key])
            states.append((revision, state))
        for revision, state in states:
            for prefix in (THINGS, "apps/things/a/"):
                page = await store.list(prefix, revision=revision)
                expected = sorted((k, v) for k, v in state.items() if k.startswith(prefix))
                assert shown(page.entries) == expected
                limited = await store.list(prefix, revision=revision, limit=2)
                assert shown(limited.entries) == expected[:2]
                assert limited.remaining in {None, max(0, len(expected) - 2)}

    async def test_a_list_ahead_of_the_store_is_refused(self, store: Store) -> None:
        asked = store.head() + 1000
        with pytest.raises(FutureRevision) as caught:
            await store.list(THINGS, revision=asked)
        assert caught.value.args[0] == asked and 0 < caught.value.args[1] < asked

    async def test_a_list_has_what_was_acknowledged_before_it(self, store: Store) -> None:
        for number in range(20):
            revision = await put(store, f"apps/things/ns/{number:02}", b"")
            page = await store.list(THINGS)
            assert len(page.entries) == number + 1 and page.revision >= revision
            assert revision <= await store.fresh()
            assert revision <= store.head()

    async def test_nothing_has_changed_in_a_collection_since_its_last_change(self, store: Store) -> None:
        await put(store, "apps/things/ns/a", b"old")
        changed = await remove(store, "apps/things/ns/a")
        await put(store, "apps/things/ns/b", b"b")
        for number in range(5):
            changed = max(changed, await put(store, "apps/things/ns/a", str(number).encode()))
            changed = max(changed, await remove(store, "apps/things/ns/a"))
            await put(store, "core/others/ns/a", b"")
        page = await store.list(THINGS)
        assert changed <= page.last_change <= page.revision
        assert (await store.list(THINGS, revision=page.last_change)).entries == page.entries

    # Watching.

    async def test_watch_replays_then_follows(self, store: Store) -> None:
        first = await put(store, "apps/things/ns/a", b"one")
        second = await put(store, "apps/things/ns/a", b"two", first)
        async with store.watch(THINGS, after=first) as watch:
            await put(store, "core/others/ns/a", b"elsewhere")
            third = await remove(store, "apps/things/ns/a", second)
            seen = await take(watch, 2)
        assert told(seen) == [(second, "apps/things/ns/a", b"two"), (third, "apps/things/ns/a", None)]
        assert seen[0].previous() == Entry("apps/things/ns/a", b"one", first)
        assert seen[1].previous() == Entry("apps/things/ns/a", b"two", second)

    async def test_a_created_key_has_no_previous_value(self, store: Store) -> None:
        async with store.watch(THINGS, after=store.head()) as watch:
            await put(store, "apps/things/ns/a", b"one")
            await remove(store, "apps/things/ns/a")
            await put(store, "apps/things/ns/a", b"again")
            created, deleted, again = await take(watch, 3)
        assert created.previous() is None and again.previous() is None
        previous = deleted.previous()
        assert previous is not None and previous.value == b"one"
        async with store.watch(THINGS, after=created.revision - 1) as watch:
            assert [event.previous() is None for event in await take(watch, 3)] == [True, False, True]

    async def test_when_a_writer_is_answered_every_watch_has_its_write(self, store: Store) -> None:
        async with (
            store.watch(THINGS, after=store.head()) as wide,
            store.watch("apps/things/ns/", after=store.head()) as narrow,
        ):
            for number in range(10):
                revision = await put(store, "apps/things/ns/a", str(number).encode())
                for watch in (wide, narrow):
                    batch = watch.take()
                    assert batch is not None and [e.revision for e in batch.events] == [revision]
                    assert watch.take() is None

    async def test_a_callback_hears_of_what_can_be_taken(self, store: Store) -> None:
        async with store.watch(THINGS, after=store.head()) as watch:
            taken: list[Batch] = []

            def take_all() -> None:
                while (batch := watch.take()) is not None:
                    taken.append(batch)

            watch.notify(take_all)
            await put(store, "apps/things/ns/a", b"one")
            await put(store, "core/others/ns/a", b"two")
            await put(store, "apps/things/ns/b", b"three")
            assert [e.key for batch in taken for e in batch.events] == [
                "apps/things/ns/a",
                "apps/things/ns/b",
            ]

    async def test_a_callback_set_late_is_called_at_once(self, store: Store) -> None:
        async with store.watch(THINGS, after=store.head()) as watch:
            await put(store, "apps/things/ns/a", b"one")
            called: list[Batch | None] = []
            watch.notify(lambda: called.append(watch.take()))
            assert [batch is not None for batch in called] == [True]

    async def test_an_idle_watch_comes_as_far_as_the_store(self, store: Store) -> None:
        async with store.watch(THINGS, after=store.head()) as watch:
            revision = await put(store, "core/others/ns/a", b"")
            await store.fresh()
            assert watch.take() is None
            assert watch.revision >= revision

    async def test_a_watch_is_not_ahead_of_what_it_can_take(self, store: Store) -> None:
        start = store.head()
        async with store.watch(THINGS, after=start) as watch:
            revision = await put(store, "apps/things/ns/a", b"")
            await put(store, "core/others/ns/a", b"")
            assert watch.revision < revision
            await take(watch, 1)
            assert watch.revision >= revision

    async def test_a_watch_of_the_future_waits_for_it(self, store: Store) -> None:
        ahead = store.head() + 3
        async with store.watch(THINGS, after=ahead) as watch:
            revisions = [await put(store, f"apps/things/ns/{number}", b"") for number in range(6)]
            expected = [revision for revision in revisions if revision > ahead]
            assert [event.revision for event in await take(watch, len(expected))] == expected

    async def test_every_watcher_gets_everything_whatever_its_start(self, store: Store) -> None:
        starts = [store.head()]
        starts += [await put(store, f"apps/things/ns/{n % 7}", str(n).encode()) for n in range(30)]
        for start in starts:
            async with store.watch(THINGS, after=start) as watch:
                revisions: list[int] = []
                while (batch := watch.take()) is not None:
                    revisions += [event.revision for event in batch.events]
                assert revisions == [revision for revision in starts[1:] if revision > start]

    async def test_ops_of_one_write_are_seen_by_a_watch_in_order(self, store: Store) -> None:
        async with store.watch("", after=store.head()) as watch:
            revisions = await store.write(
                [Op("core/others/ns/z", b"z"), Op("apps/things/ns/b", b"b"), Op("apps/things/ns/a", b"a")]
            )
            seen = await take(watch, 3)
        assert [(e.revision, e.key[-1]) for e in seen] == list(zip(revisions, "zba", strict=True))

    async def test_a_watch_resumes_between_the_ops_of_one_write(self, store: Store) -> None:
        revisions = await store.write([Op(f"apps/things/ns/{name}", b"") for name in "abc"])
        async with store.watch(THINGS, after=revisions[0]) as watch:
            assert [event.revision for event in await take(watch, 2)] == list(revisions[1:])

    async def test_there_is_no_gap_between_a_list_and_a_watch(self, store: Store) -> None:
        """Whatever is written meanwhile, a list and a watch from its revision add up to what is there."""
        rng = random.Random(5)
        done = asyncio.Event()

        async def write() -> None:
            for number in range(150):
                key = f"apps/things/ns/{rng.randrange(12)}"
                try:
                    await store.write([Op(key, None if rng.random() < 0.3 else str(number).encode())])
                except RevisionConflict:
                    continue
            done.set()

        async def follow() -> dict[str, bytes]:
            await asyncio.sleep(0)
            page = await store.list(THINGS)
            state = {entry.key: entry.value for entry in page.entries}
            last = page.revision
            async with store.watch(THINGS, after=page.revision) as watch:
                await done.wait()
                while (batch := watch.take()) is not None:
                    for event in batch.events:
                        assert event.revision > last, "an event came twice or out of order"
                        last = event.revision
                        if event.entry is None:
                            del state[event.key]
                        else:
                            state[event.key] = event.entry.value
            return state

        _, *states = await asyncio.gather(write(), *(follow() for _ in range(5)))
        expected = dict(shown((await store.list(THINGS)).entries))
        assert all(state == expected for state in states)

    async def test_a_reader_that_was_cut_off_resumes_where_it_was(self, store: Store) -> None:
        """Connections are cut at any point; resuming after the last event seen loses none and repeats none."""
        rng = random.Random(3)
        written = [
            asyncio.create_task(put(store, f"apps/things/ns/{rng.randrange(9)}", str(n).encode()))
            for n in range(120)
        ]
        start = last = store.head()
        seen: list[int] = []
        while len(seen) < len(written):
            async with store.watch(THINGS, after=last) as watch:
                for _ in range(rng.randrange(1, 4)):
                    if len(seen) == len(written):
                        break
                    async with asyncio.timeout(PATIENCE_S):
                        batch = await anext(watch)
                    cut = rng.randrange(1, len(batch.events) + 1)
                    seen += [event.revision for event in batch.events[:cut]]
                    last = seen[-1]
                    if cut < len(batch.events):
                        break
        assert seen == sorted(await asyncio.gather(*written)) and seen[0] > start

    async def test_a_watch_left_while_waiting_leaves_the_others(self, store: Store) -> None:
        async with store.watch(THINGS, after=store.head()) as stays:
            async with store.watch(THINGS, after=store.head()) as leaves:
                waiting = asyncio.create_task(_next(leaves))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            revision = await put(store, "apps/things/ns/a", b"")
            assert [event.revision for event in await take(stays, 1)] == [revision]

    async def test_async_for_yields_batches(self, store: Store) -> None:
        async with store.watch(THINGS, after=store.head()) as watch:
            for name in "abc":
                await put(store, f"apps/things/ns/{name}", b"")
            seen: list[str] = []
            async with asyncio.timeout(PATIENCE_S), aclosing(_events(watch)) as events:
                async for event in events:
                    seen.append(event.key[-1])
                    if len(seen) == 3:
                        break
            assert seen == ["a", "b", "c"]

    # Forgetting.

    async def test_compaction_ends_old_watches_and_lists_and_keeps_values(self, store: Store) -> None:
        first = await put(store, "apps/things/ns/a", b"one")
        await put(store, "apps/things/ns/b", b"stays")
        second = await put(store, "apps/things/ns/a", b"two", first)
        await store.compact(second)
        with pytest.raises(Compacted):
            async with store.watch("", after=first - 1):
                pass
        with pytest.raises(Compacted):
            await store.list("", revision=first)
        assert shown((await store.list(THINGS)).entries) == [
            ("apps/things/ns/a", b"two"),
            ("apps/things/ns/b", b"stays"),
        ]

    async def test_what_the_horizon_keeps_is_all_there(self, store: Store) -> None:
        await put(store, "apps/things/ns/a", b"one")
        gone = await put(store, "apps/things/ns/gone", b"gone")
        await remove(store, "apps/things/ns/gone", gone)
        horizon = await put(store, "apps/things/ns/a", b"two")
        later = await put(store, "apps/things/ns/a", b"three")
        await store.compact(horizon)
        page = await store.list(THINGS, revision=horizon)
        assert shown(page.entries) == [("apps/things/ns/a", b"two")]
        async with store.watch(THINGS, after=horizon - 1) as watch:
            assert [event.revision for event in await take(watch, 2)] == [horizon, later]
        assert await store.count(THINGS) == 1
        recreated = await put(store, "apps/things/ns/gone", b"back", ABSENT)
        assert recreated > later

    async def test_compaction_never_goes_back_nor_ahead(self, store: Store) -> None:
        first = await put(store, "apps/things/ns/a", b"one")
        await store.compact(first)
        await store.compact(1)
        await store.compact(store.head() + 1000)
        second = await put(store, "apps/things/ns/a", b"two")
        async with store.watch(THINGS, after=second - 1) as watch:
            assert [event.revision for event in await take(watch, 1)] == [second]

    async def test_a_watch_in_place_survives_compaction(self, store: Store) -> None:
        async with store.watch(THINGS, after=store.head()) as watch:
            await put(store, "apps/things/ns/a", b"one")
            await take(watch, 1)
            await store.compact(store.head())
            revision = await put(store, "apps/things/ns/a", b"two")
            assert [event.revision for event in await take(watch, 1)] == [revision]

    async def test_compaction_while_writers_write_loses_nothing(self, store: Store) -> None:
        async def write(name: str) -> None:
            for number in range(25):
                await put(store, f"apps/things/ns/{name}", str(number).encode())
            await remove(store, f"apps/things/ns/{name}")
            await put(store, f"apps/things/ns/{name}", b"last")

        async def compact() -> None:
            for _ in range(10):
                await store.compact(store.head() - 3)
                await asyncio.sleep(0)

        names = [str(number) for number in range(8)]
        await asyncio.gather(compact(), *(write(name) for name in names))
        await store.compact(store.head())
        page = await store.list(THINGS)
        assert shown(page.entries) == [(f"apps/things/ns/{name}", b"last") for name in names]

    # Dropping a range.

    async def test_a_dropped_range_is_empty_and_its_neighbours_stay(self, store: Store) -> None:
        for key in ("apps/things/a/x", "apps/things/a/y", "apps/things/a-b/x", "apps/things/b/x"):
            await put(store, key, b"old")
        async with store.watch(THINGS, after=store.head()) as watch:
            await store.drop("apps/things/a/")
            [event] = await take(watch, 1)
        assert event.dropped and event.entry is None and event.key == "apps/things/a/"
        assert event.revision <= store.head()
        assert await store.get("apps/things/a/x") is None
        assert await store.count(THINGS) == 2
        assert [e.key for e in (await store.list(THINGS)).entries] == ["apps/things/a-b/x", "apps/things/b/x"]
        assert list((await store.list("apps/things/a/")).entries) == []
        with pytest.raises(RevisionConflict):
            await remove(store, "apps/things/a/x")

    async def test_a_drop_happens_only_if_its_guards_hold(self, store: Store) -> None:
        guard = Guard("core/terms/-/a", await put(store, "core/terms/-/a", b"one"))
        absent = Guard("core/terms/-/b", ABSENT)
        await put(store, "apps/things/a/x", b"")
        await store.drop("apps/things/b/", [guard, absent])
        await put(store, "core/terms/-/a", b"two")
        head = store.head()
        with pytest.raises(GuardFailed) as caught:
            await store.drop("apps/things/a/", [absent, guard])
        assert caught.value.args[0] == "core/terms/-/a"
        assert (await store.count(THINGS), store.head()) == (1, head)
        current = await store.get("core/terms/-/a")
        assert current is not None
        await store.drop("apps/things/a/", [absent, Guard(current.key, current.revision)])
        assert await store.count(THINGS) == 0

    async def test_a_watch_of_a_part_sees_its_part_dropped(self, store: Store) -> None:
        await put(store, "apps/things/a/x", b"")
        async with (
            store.watch("apps/things/a/", after=store.head()) as narrow,
            store.watch("core/others/", after=store.head()) as other,
        ):
            await store.drop("apps/")
            [event] = await take(narrow, 1)
            assert event.dropped and event.key == "apps/things/a/"
            assert other.take() is None
        assert await store.count("apps/") == 0

    async def test_a_dropped_range_can_be_filled_again(self, store: Store) -> None:
        first = await put(store, "apps/things/a/x", b"old")
        await store.drop("apps/things/a/")
        second = await put(store, "apps/things/a/x", b"new", ABSENT)
        assert shown((await store.list(THINGS)).entries) == [("apps/things/a/x", b"new")]
        async with store.watch(THINGS, after=first) as watch:
            dropped, created = await take(watch, 2)
        assert dropped.dropped and first < dropped.revision < second
        assert created.revision == second and created.previous() is None
        await store.compact(store.head())
        assert shown((await store.list(THINGS)).entries) == [("apps/things/a/x", b"new")]
        third = await put(store, "apps/things/a/x", b"newer", second)
        await store.compact(third)
        assert await store.count(THINGS) == 1

    async def test_dropping_twice_is_dropping_once(self, store: Store) -> None:
        await put(store, "apps/things/a/x", b"")
        async with store.watch(THINGS, after=store.head()) as watch:
            await store.drop("apps/things/a/")
            await store.drop("apps/things/a/")
            await put(store, "apps/things/a/y", b"")
            await store.drop("apps/things/a/")
            events = await take(watch, 3)
        assert [event.dropped for event in events] == [True, False, True]
        assert await store.count(THINGS) == 0

    async def test_history_before_a_drop_is_whole_or_gone(self, store: Store) -> None:
        for name in "xyz":
            await put(store, f"apps/things/a/{name}", b"old")
        before = store.head()
        await store.drop("apps/things/a/")
        await put(store, "apps/things/a/x", b"new")
        try:
            page = await store.list(THINGS, revision=before)
        except Compacted:
            return
        assert shown(page.entries) == [(f"apps/things/a/{name}", b"old") for name in "xyz"]

    async def test_many_keys_drop_and_the_space_is_swept(self, store: Store) -> None:
        for start in range(0, 1500, WRITE_OPS_MAX):
            await store.write(
                [Op(f"apps/things/a/{n:05}", b"v") for n in range(start, start + WRITE_OPS_MAX)]
            )
        kept = await put(store, "apps/things/b/x", b"kept")
        await store.drop("apps/things/a/")
        assert await store.count(THINGS) == 1
        await put(store, "apps/things/a/00007", b"new")
        await store.compact(store.head())
        assert [e.key for e in (await store.list(THINGS)).entries] == [
            "apps/things/a/00007",
            "apps/things/b/x",
        ]
        assert await store.get("apps/things/b/x") == Entry("apps/things/b/x", b"kept", kept)

    # Expiry.

    async def test_what_has_expired_is_named_until_deleted(self, store: Store) -> None:
        await store.write(
            [
                Op("apps/things/ns/early", b"1", expires_at=100),
                Op("apps/things/ns/late", b"2", expires_at=200),
                Op("apps/things/ns/never", b"3"),
            ]
        )
        assert await store.expired(99, 10) == []
        assert shown(await store.expired(100, 10)) == [("apps/things/ns/early", b"1")]
        assert len(await store.expired(1000, 10)) == 2
        assert len(await store.expired(1000, 1)) == 1
        assert await store.get("apps/things/ns/early") is not None
        [early] = await store.expired(100, 10)
        await remove(store, early.key, early.revision)
        assert await store.expired(100, 10) == []

    async def test_a_later_write_moves_or_ends_the_expiry(self, store: Store) -> None:
        for name in ("moved", "ended", "dropped/x"):
            await store.write([Op(f"apps/things/{name}", b"", expires_at=100)])
        await store.write([Op("apps/things/moved", b"", expires_at=300)])
        await store.write([Op("apps/things/ended", b"")])
        await store.drop("apps/things/dropped/")
        assert await store.expired(200, 10) == []
        assert [entry.key for entry in await store.expired(300, 10)] == ["apps/things/moved"]

    async def test_identity_stays(self, store: Store) -> None:
        identity = await store.identity()
        assert identity.id and identity.epoch >= 1
        await put(store, "apps/things/ns/a", b"")
        assert await store.identity() == identity

    async def test_what_is_refused_is_a_storage_error_and_no_event(self, store: Store) -> None:
        async with store.watch("", after=store.head()) as watch:
            for op in (
                Op("apps/things/ns/a", None),
                Op("apps/things/ns/a", b"", 1),
                Op("apps/things/ns/a", None, 0),
            ):
                with pytest.raises(StorageError):
                    await store.write([op])
            revision = await put(store, "apps/things/ns/a", b"")
            assert [event.revision for event in await take(watch, 1)] == [revision]

    # Counting.

    async def test_objects_and_bytes_are_counted_as_they_come_change_and_go(self, store: Store) -> None:
        objects, size = await used(store)
        await put(store, "apps/things/ns/a", b"three")
        await put(store, "apps/things/ns/b", b"four")
        await put(store, "core/others/-/x", b"elsewhere")
        assert await used(store) == (objects + 2, size + 9)
        await put(store, "apps/things/ns/a", b"longer than it was")
        assert await used(store) == (objects + 2, size + 22)
        await remove(store, "apps/things/ns/a")
        await remove(store, "apps/things/ns/b")
        assert await used(store) == (objects, size)

    async def test_what_was_refused_is_not_counted(self, store: Store) -> None:
        await put(store, "apps/things/ns/a", b"one")
        before = await used(store)
        with pytest.raises(KeyExists):
            await store.write([Op("apps/things/ns/b", b"new"), Op("apps/things/ns/a", b"again", ABSENT)])
        assert await used(store) == before

    @pytest.mark.parametrize("prefix", ["apps/things/a/", "apps/things/", "apps/"])
    async def test_what_is_dropped_is_counted_no_more(self, store: Store, prefix: str) -> None:
        before = await used(store)
        for name in "xyz":
            await put(store, f"apps/things/a/{name}", b"in the way")
        await put(store, "apps/things-2/b/x", b"beside")
        await store.drop("apps/things/a/")
        await put(store, "apps/things/a/y", b"again")
        there = await used(store)
        assert there == (before[0] + 2, before[1] + 11)
        await store.drop(prefix)
        beside = (0, 0) if prefix == "apps/" else (1, 6)
        assert await used(store) == (before[0] + beside[0], before[1] + beside[1])

    async def test_compaction_leaves_the_count_alone(self, store: Store) -> None:
        await put(store, "apps/things/ns/a", b"one")
        await put(store, "apps/things/ns/a", b"second")
        await put(store, "apps/things/ns/b", b"gone")
        await remove(store, "apps/things/ns/b")
        before = await used(store)
        await store.compact(store.head())
        assert await used(store) == before

    @pytest.mark.parametrize("prefix", ["apps/", "apps/things/"])
    async def test_a_limit_refuses_the_first_object_too_many(self, store: Store, prefix: str) -> None:
        limit = await at_most(store, prefix, objects=2)
        for name in "ab":
            await store.write([Op(f"apps/things/ns/{name}", b"one", ABSENT)], limits=[limit])
        before = await used(store)
        with pytest.raises(LimitReached) as refused:
            await store.write([Op("apps/things/ns/c", b"one", ABSENT)], limits=[limit])
        assert refused.value.args == (limit, limit.most, 1)
        assert await used(store) == before and await store.get("apps/things/ns/c") is None
        await store.write([Op("core/others/-/a", b"not counted")], limits=[limit])
        await store.write([Op("apps/things/ns/c", b"one", ABSENT)])
        await remove(store, "apps/things/ns/c")

    async def test_records_about_objects_count_for_their_bytes_alone(self, store: Store) -> None:
        objects = await at_most(store, "apps/", objects=1)
        await store.write([Op("apps/~records/-/a", b"one", ABSENT)], limits=[objects])
        await store.write(
            [Op("apps/things/ns/a", b"one", ABSENT), Op("apps/~records/-/b", b"one", ABSENT)],
            limits=[objects],
        )
        with pytest.raises(LimitReached):
            await store.write([Op("apps/things/ns/b", b"one", ABSENT)], limits=[objects])
        size = await at_most(store, "apps/", size=2)
        with pytest.raises(LimitReached):
            await store.write([Op("apps/~records/-/c", b"one", ABSENT)], limits=[size])

    async def test_a_limit_refuses_the_first_byte_too_many(self, store: Store) -> None:
        limit = await at_most(store, "apps/", size=20)
        await store.write([Op("apps/things/ns/a", b"x" * 20)], limits=[limit])
        with pytest.raises(LimitReached):
            await store.write([Op("apps/things/ns/b", b"{}")], limits=[limit])
        with pytest.raises(LimitReached):
            await store.write([Op("apps/things/ns/a", b"x" * 21)], limits=[limit])
        await store.write([Op("apps/things/ns/a", b"x" * 18)], limits=[limit])
        await store.write([Op("apps/things/ns/b", b"{}")], limits=[limit])

    async def test_above_a_limit_what_adds_nothing_passes(self, store: Store) -> None:
        revision = await put(store, "apps/things/ns/a", b"first")
        await put(store, "apps/things/ns/b", b"second")
        objects, size = Limit("apps/", Measure.OBJECTS, 0), Limit("apps/", Measure.BYTES, 1)
        limits = [objects, size]
        [revision] = await store.write([Op("apps/things/ns/a", b"fewer"[:4], revision)], limits=limits)
        [revision] = await store.write([Op("apps/things/ns/a", b"same", revision)], limits=limits)
        with pytest.raises(LimitReached):
            await store.write([Op("apps/things/ns/a", b"more of it", revision)], limits=limits)
        moved = [Op("apps/things/ns/a", None, revision), Op("apps/things/ns/moved", b"same")]
        await store.write(moved, limits=limits)
        await store.write([Op("apps/things/ns/b", None)], limits=limits)

    async def test_a_stale_writer_is_told_so_though_there_is_room(self, store: Store) -> None:
        stale = await put(store, "apps/things/ns/a", b"one")
        await put(store, "apps/things/ns/a", b"two")
        limit = await at_most(store, "apps/", objects=5)
        with pytest.raises(RevisionConflict):
            await store.write([Op("apps/things/ns/a", b"three", stale)], limits=[limit])

    async def test_a_write_at_a_limit_is_all_or_nothing(self, store: Store) -> None:
        limit = await at_most(store, "apps/things/", objects=1)
        before = await used(store)
        with pytest.raises(LimitReached):
            await store.write(
                [Op("apps/things/ns/a", b"one"), Op("apps/things/ns/b", b"two")], limits=[limit]
            )
        assert await used(store) == before
        for name in "ab":
            assert await store.get(f"apps/things/ns/{name}") is None

    async def test_of_concurrent_writers_no_more_pass_than_may(self, store: Store) -> None:
        limit = await at_most(store, "apps/", objects=7)

        async def write(name: str) -> bool:
            try:
                await store.write([Op(f"apps/things/ns/{name}", b"one")], limits=[limit])
            except LimitReached:
                return False
            return True

        outcomes = await asyncio.gather(*(write(str(n)) for n in range(30)))
        assert sum(outcomes) == 7
        assert (await used(store))[0] == limit.most

    async def test_room_that_a_deletion_makes_can_be_taken_at_once(self, store: Store) -> None:
        limit = await at_most(store, "apps/", objects=1)
        for name in "abc":
            await store.write([Op(f"apps/things/ns/{name}", b"one")], limits=[limit])
            with pytest.raises(LimitReached):
                await store.write([Op("apps/things/ns/d", b"one")], limits=[limit])
            await remove(store, f"apps/things/ns/{name}")


async def _next(watch: Watch) -> Batch:
    return await anext(watch)


async def _events(watch: Watch) -> AsyncGenerator[Event, None]:
    async for batch in watch:
        for event in batch.events:
            yield event
