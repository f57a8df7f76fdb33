"""Windows that overflow, replays that are long, and readers that are slow."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import pytest

from clusterling.storage import memory
from clusterling.storage.awaited import WOKEN_AT_ONCE
from clusterling.storage.feed import REPLAY_PAGE_EVENTS, WINDOW_EVENTS_MAX, Feed, Stream
from clusterling.storage.store import Batch, Compacted, Entry, Event, Op
from clusterling.testing.store_contract import put, take


def batch(*revisions: int) -> Batch:
    events = [Event(r, f"a/b/{r}", Entry(f"a/b/{r}", b"v", r)) for r in revisions]
    return Batch(events, revisions[-1])


async def test_who_falls_out_of_the_window_is_told_and_the_others_are_not() -> None:
    async with memory.open() as store:
        start = store.head()
        async with store.watch("a/", after=start) as slow, store.watch("a/", after=start) as quick:
            taken = 0
            for begin in range(0, WINDOW_EVENTS_MAX + 200, 100):
                await store.write([Op(f"a/b/{n % 300}", b"") for n in range(begin, begin + 100)])
                while (seen := quick.take()) is not None:
                    taken += len(seen.events)
            assert taken == WINDOW_EVENTS_MAX + 200
            for _ in range(2):
                with pytest.raises(Compacted):
                    slow.take()
            assert slow.revision == start
            revision = await put(store, "a/b/last", b"")
            assert [event.revision for event in await take(quick, 1)] == [revision]
            async with store.watch("a/", after=start) as again:
                assert len(await take(again, WINDOW_EVENTS_MAX + 201)) == WINDOW_EVENTS_MAX + 201


async def test_a_window_is_bounded_in_bytes_too() -> None:
    async with memory.open() as store, store.watch("a/", after=store.head()) as slow:
        for _ in range(40):
            await put(store, "a/b/c", b"x" * (1 << 20))
        with pytest.raises(Compacted):
            slow.take()


async def test_a_long_replay_is_complete_and_joins_what_is_written_meanwhile() -> None:
    async with memory.open() as store:
        start = store.head()
        count = 2 * REPLAY_PAGE_EVENTS + 500
        for begin in range(0, count, 100):
            await store.write([Op(f"a/b/{n}", b"") for n in range(begin, begin + 100)])
        async with store.watch("a/", after=start) as watch:
            last = await put(store, "a/b/live", b"")
            revisions = [event.revision for event in await take(watch, count + 1)]
        assert revisions == list(range(start + 1, last + 1))


async def test_thousands_of_watches_are_woken_some_at_each_round_of_the_loop() -> None:
    async with memory.open() as store, AsyncExitStack() as stack:
        woken: list[int] = []
        watches = []
        for number in range(10 * WOKEN_AT_ONCE):
            watch = await stack.enter_async_context(store.watch("a/", after=store.head()))
            watch.notify(partial(woken.append, number))
            watches.append(watch)
        longest = rounds = 0
        writing = asyncio.create_task(put(store, "a/b/1", b""))
        again = None
        while len(woken) < len(watches) or again is None or rounds < 60:
            before = len(woken)
            await asyncio.sleep(0)
            longest = max(longest, len(woken) - before)
            rounds += 1
            if again is None and len(woken) >= 2 * WOKEN_AT_ONCE:
                again = asyncio.create_task(put(store, "a/b/2", b""))
            assert rounds < 1000
        assert longest <= WOKEN_AT_ONCE
        assert set(woken) == set(range(len(watches))), "each of them, whatever is written meanwhile"
        for watch in watches:
            assert [event.key for event in await take(watch, 2)] == ["a/b/1", "a/b/2"]
        await writing
        await again


async def test_who_leaves_while_others_are_woken_is_not_called_any_more() -> None:
    async with memory.open() as store, AsyncExitStack() as stack, AsyncExitStack() as leaving:
        told: list[int] = []
        for number in range(2 * WOKEN_AT_ONCE):
            context = store.watch("a/", after=store.head())
            watch = await (stack if number % 2 else leaving).enter_async_context(context)
            watch.notify(partial(told.append, number))
        writing = asyncio.create_task(put(store, "a/b/1", b""))
        while not told:
            await asyncio.sleep(0)
        first = list(told)
        await leaving.aclose()
        told.clear()
        await asyncio.sleep(0.01)
        await writing
        assert all(number % 2 for number in told)
        assert {*first, *told} >= set(range(1, 2 * WOKEN_AT_ONCE, 2))


async def test_watches_of_one_prefix_share_batches() -> None:
    async with memory.open() as store, AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(store.watch("a/", after=store.head())) for _ in range(3)]
        await put(store, "a/b/c", b"")
        one, *others = [watch.take() for watch in watches]
        assert one is not None and all(other is one for other in others)


async def test_a_taken_batch_is_not_kept() -> None:
    stream = Stream("a/", lambda: 0, keep=False)
    first, second = stream.subscribe(0), stream.subscribe(0)
    for revision in range(1, 201):
        stream.append(batch(revision))
        assert first.take() is not None and second.take() is not None
    assert len(stream.batches_after(0)) < 100


async def test_a_kept_window_serves_those_who_resume_anywhere_in_it() -> None:
    stream = Stream("a/", lambda: 9, keep=True, floor=1)
    for revisions in ((2, 3), (5,), (6, 7, 9)):
        stream.append(batch(*revisions))
    for after in range(1, 10):
        watch = stream.subscribe(after)
        seen: list[int] = []
        while (got := watch.take()) is not None:
            seen += [event.revision for event in got.events]
        assert seen == [revision for revision in (2, 3, 5, 6, 7, 9) if revision > after]
        assert watch.revision == 9


async def test_a_gap_ends_every_watch_and_new_ones_go_on_above_it() -> None:
    backend = memory.MemoryBackend()
    feed = Feed(backend)
    backend.follow(feed.publish, feed.lose)
    async with feed.watch("a/", after=feed.revision) as before:
        feed.lose(500)
        with pytest.raises(Compacted):
            before.take()
    assert feed.revision == 500
    async with feed.watch("a/", after=500) as after:
        feed.publish([Event(501, "a/b/c", Entry("a/b/c", b"v", 501))], 501)
        assert [event.revision for event in await take(after, 1)] == [501]


async def test_a_watch_that_rests_goes_on_from_where_an_equal_one_stands() -> None:
    stream = Stream("a/", lambda: 9, keep=False)
    stream.append(batch(1, 2))
    leading, resting = stream.subscribe(0), stream.subscribe(0)
    woken: list[str] = []
    assert [one.take() for one in (leading, resting)] == [stream.at(0)] * 2
    assert resting.level_with(leading)
    leading.notify(lambda: woken.append("leading"))
    resting.notify(lambda: woken.append("resting"))
    resting.rest()
    stream.append(batch(3))
    stream.wake()
    assert woken == ["leading"]
    assert not resting.level_with(leading)
    assert leading.take() is not None
    stream.append(batch(4))
    resting.follow(leading)
    stream.wake()
    assert sorted(woken[1:]) == ["leading", "resting"]
    for one in (leading, resting):
        taken = one.take()
        assert taken is not None
        assert [event.revision for event in taken.events] == [4]
        assert one.take() is None
    assert resting.level_with(leading)
    resting.close()
    resting.follow(leading)
    assert resting not in stream.watches


async def test_watches_of_different_streams_or_places_are_not_level() -> None:
    one, other = Stream("a/", lambda: 1, keep=True), Stream("a/", lambda: 1, keep=True)
    first, elsewhere, ahead = one.subscribe(0), other.subscribe(0), one.subscribe(5)
    assert first.level_with(first)
    assert not first.level_with(elsewhere)
    assert not ahead.level_with(first), "it leaves out what the other takes"
    one.append(batch(1))
    assert not first.level_with(first), "there is something to take"
