"""The work queue and the loop around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from typing_extensions import override

from clusterling.controllers.runtime import Controller, Runtime, WorkQueue
from clusterling.server import SystemClock
from clusterling.storage import memory
from clusterling.storage.store import Event, Op
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
    async def walk(self) -> AsyncIterator[str]:
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
    assert queue.waits
    clock.turn(60.0)
    assert await queue.get() == "late"
    assert (len(queue), queue.waits) == (1, False)


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
