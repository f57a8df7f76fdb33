"""The work queue and the loop around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import pytest
from typing_extensions import override

from clusterling.controllers.runtime import (
    CURSOR_KEY,
    KEYS_MAX,
    PARKED_MAX,
    Controller,
    Key,
    Runtime,
    WorkQueue,
)
from clusterling.server import SystemClock
from clusterling.storage import memory
from clusterling.storage.store import Event, Op, Store, Unavailable
from tests.controllers.conftest import PATIENCE_S, until
from tests.registry.conftest import TurnedClock


class Recorder(Controller[str]):
    """Notes what it is asked to do; fails as often as it is told to."""

    name = "recorder"
    workers = 2

    def __init__(self, failures: int = 0) -> None:
        self.seen: list[str] = []
        self.failures = failures
        self.walked = 0

    @override
    def keys(self, event: Event) -> Iterable[str]:
        return (event.key,) if event.key.startswith("a/") else ()

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[str]:
        self.walked += 1
        yield "a/walked"

    @override
    async def reconcile(self, key: str) -> float | None:
        self.seen.append(key)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("told to fail")
        return None


async def test_a_key_added_while_worked_on_comes_once_more() -> None:
    queue = WorkQueue(SystemClock())
    queue.add("k")
    queue.add("k")
    assert await queue.get() == "k"
    queue.add("k")
    queue.add("k")
    assert len(queue) == 1
    queue.done("k")
    assert await queue.get() == "k"
    queue.done("k")
    assert len(queue) == 0


async def test_failures_put_a_key_off_for_longer_each_time() -> None:
    clock = TurnedClock()
    queue = WorkQueue(clock)
    delays = []
    queue.add("k")
    for _ in range(20):
        key = await queue.get()
        delays.append(queue.failed(key))
        clock.turn(delays[-1] + 0.001)
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0.05, 60.0)


async def test_a_key_put_off_more_than_once_comes_once_at_the_earliest_time() -> None:
    clock = TurnedClock()
    queue = WorkQueue(clock)
    for delay_s in (30.0, 10.0, 20.0, 60.0):
        queue.add_after("k", delay_s)
    queue.add_after("late", 70.0)
    clock.turn(11.0)
    assert await queue.get() == "k"
    queue.done("k")
    assert list(queue.waiting) == ["late"]
    clock.turn(60.0)
    assert await queue.get() == "late"
    assert (len(queue), list(queue.waiting)) == (1, [])


@dataclass(frozen=True, slots=True)
class Item:
    """A key of a cluster."""

    cluster: str
    number: int


async def drained(queue: WorkQueue) -> list[Key]:
    """What the queue has, in order."""
    found: list[Key] = []
    while len(queue):
        key = await queue.get()
        queue.done(key)
        found.append(key)
    return found


async def test_thousands_of_keys_of_one_cluster_make_anothers_wait_for_one() -> None:
    queue = WorkQueue(SystemClock())
    loud = [Item("loud", number) for number in range(10_000)]
    quiet = [Item("quiet", number) for number in range(3)]
    for key in (*loud, *quiet):
        queue.add(key)
    order = await drained(queue)
    assert [order.index(key) for key in quiet] == [1, 3, 5]
    assert [key for key in order if key not in quiet] == loud


async def test_who_fails_again_and_again_waits_behind_the_others_of_its_cluster_alone() -> None:
    clock = TurnedClock()
    queue = WorkQueue(clock)
    for number in range(100):
        queue.add(Item("loud", number))
        queue.failed(await queue.get())
    clock.turn(1.0)
    queue.add(Item("quiet", 0))
    order = await drained(queue)
    assert len(order) == 101 and order.index(Item("quiet", 0)) <= 1


async def test_of_one_cluster_no_more_keys_wait_than_may_and_of_others_all() -> None:
    queue = WorkQueue(SystemClock())
    for number in range(KEYS_MAX + 100):
        queue.add(Item("loud", number))
    queue.add(Item("quiet", 0))
    assert await queue.left_out() == "loud"
    assert len(queue) == KEYS_MAX + 2, "all that may, the other's, and a cluster to be walked"


async def test_what_is_worked_on_or_put_off_comes_again_though_its_cluster_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clusterling.controllers.runtime.KEYS_MAX", 2)
    clock = TurnedClock()
    queue = WorkQueue(clock)
    for number in range(2):
        queue.add(Item("a", number))
    changed, failing = await queue.get(), await queue.get()
    queue.add(changed)
    queue.failed(failing)
    for number in range(2, 5):
        queue.add(Item("a", number))
    queue.done(changed)
    clock.turn(1.0)
    assert await queue.left_out() == "a"
    queue.walked("a", whole=True)
    assert await drained(queue) == [Item("a", 2), Item("a", 3), changed, failing]


class Census(Controller[Item]):
    """Has each of many objects of a cluster looked at. `waits`: nothing is done until then."""

    name = "census"
    workers = 2

    def __init__(self, store: Store, refusals: int = 0) -> None:
        self._store = store
        self._refusals = refusals
        self.waits = asyncio.Event()
        self.seen: list[Item] = []
        self.walked: list[str] = []

    @override
    def keys(self, event: Event) -> Iterable[Item]:
        cluster, _, name = event.key.partition("/")
        return (Item(cluster, int(name)),) if name.isdigit() else ()

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[Item]:
        self.walked.append(cluster)
        for entry in (await self._store.list(f"{cluster}/")).entries:
            yield Item(cluster, int(entry.key.partition("/")[2]))
            if self._refusals:
                self._refusals -= 1
                raise Unavailable("told to be away")

    @override
    async def reconcile(self, key: Item) -> float | None:
        await self.waits.wait()
        self.seen.append(key)
        return None


@pytest.mark.parametrize("refusals", [0, 2])
async def test_keys_for_which_there_was_no_room_are_found_by_a_walk_of_their_cluster_alone(
    monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    monkeypatch.setattr("clusterling.controllers.runtime.KEYS_MAX", 10)
    monkeypatch.setattr("clusterling.controllers.runtime.ROOM", 5)
    monkeypatch.setattr("clusterling.controllers.runtime.WALK_AGAIN_S", 0.01)
    async with memory.open() as store:
        census = Census(store, refusals)
        runtime = Runtime(store, (census,), SystemClock())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(runtime.run())
            for number in range(300):
                await store.write([Op(f"loud/{number}", b"{}")])
            await store.write([Op("quiet/0", b"{}")])

            async def queued() -> bool:
                return any(depth > 10 for _, depth, _ in runtime.queues())

            await until(queued)
            await runtime.save()
            assert await store.get(CURSOR_KEY) is None, "what was left out is not done"
            census.waits.set()
            depths: list[int] = []

            async def done() -> bool:
                depths.extend(depth for _, depth, _ in runtime.queues())
                return runtime.idle

            await until(done)
            assert {*census.seen} == {Item("quiet", 0), *(Item("loud", number) for number in range(300))}
            assert census.seen.index(Item("quiet", 0)) < 10
            assert max(depths) <= 10 + 2 + 1 + 1
            assert {*census.walked} == {"loud"} and len(census.walked) > refusals
            await runtime.save()
            assert await store.get(CURSOR_KEY) is not None
            task.cancel()


async def test_a_reconcile_that_fails_is_tried_again() -> None:
    recorder = Recorder(failures=2)
    async with memory.open() as store, asyncio.TaskGroup() as group:
        task = group.create_task(Runtime(store, (recorder,), SystemClock()).run())
        await store.write([Op("a/1", b"{}"), Op("b/1", b"{}")])

        async def tried() -> bool:
            return recorder.seen == ["a/1"] * 3

        await until(tried)
        task.cancel()


async def test_a_restart_goes_on_where_it_was_left() -> None:
    async with memory.open() as store:
        first, second = Recorder(), Recorder()
        await store.write([Op("a/1", b"{}")])
        runtime = Runtime(store, (first,), SystemClock())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(runtime.run())

            async def done() -> bool:
                return first.seen == ["a/1"] and runtime.idle

            await until(done)
            await runtime.save()
            task.cancel()
        await store.write([Op("a/2", b"{}")])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(Runtime(store, (second,), SystemClock()).run())

            async def caught_up() -> bool:
                return second.seen == ["a/2"]

            await until(caught_up)
            task.cancel()
        assert second.walked == 0


class Waiter(Recorder):
    """Looks at each key again an hour later. `found`: an object tells of its keys."""

    def __init__(self, *, found: bool = True) -> None:
        super().__init__()
        self.found = found

    @override
    async def reconcile(self, key: str) -> float | None:
        await super().reconcile(key)
        return 3600.0

    @override
    def entry_of(self, key: str) -> str:
        return key if self.found else ""


async def _worked(store: Store, controller: Recorder, expected: list[str]) -> None:
    """Runs the controller until it has seen just that and what it does is written down."""
    runtime = Runtime(store, (controller,), SystemClock())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runtime.run())

        async def done() -> bool:
            return sorted(controller.seen) == expected and runtime.idle

        await until(done)
        await runtime.save()
        task.cancel()


async def test_what_waits_for_ever_keeps_no_restart_from_going_on_and_is_found_by_it() -> None:
    async with memory.open() as store:
        await store.write([Op("a/1", b"{}"), Op("a/2", b"{}")])
        await _worked(store, Waiter(), ["a/1", "a/2"])
        await store.write([Op("a/2", None)])
        await store.write([Op("a/3", b"{}")])
        second = Waiter()
        await _worked(store, second, ["a/1", "a/2", "a/3"])
        # Nobody has history from before what the second run did; what waits was not written since.
        await store.compact(store.head())
        third = Waiter()
        await _worked(store, third, ["a/1", "a/3"])
        assert second.walked == third.walked == 0


async def test_what_waits_and_cannot_be_found_again_holds_the_place_to_resume_from() -> None:
    async with memory.open() as store:
        await store.write([Op("a/1", b"{}")])
        await _worked(store, Waiter(found=False), ["a/1"])
        await _worked(store, Recorder(), ["a/1"])


async def test_where_more_waits_than_can_be_written_down_the_place_to_resume_from_stays() -> None:
    names = [f"a/{number:04}" for number in range(PARKED_MAX + 1)]
    async with memory.open() as store:
        for name in names:
            await store.write([Op(name, b"{}")])
        await _worked(store, Waiter(), names)
        await _worked(store, Recorder(), names)
        assert await store.get(CURSOR_KEY) is not None


async def test_where_history_is_gone_every_key_is_walked() -> None:
    async with memory.open() as store:
        recorder = Recorder()
        await store.write([Op("a/1", b"{}")])
        await store.write([Op("a/1", b"{}")])
        await store.compact(store.head())
        async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE_S):
            task = group.create_task(Runtime(store, (recorder,), SystemClock()).run())

            async def walked() -> bool:
                return "a/walked" in recorder.seen

            await until(walked)
            task.cancel()
