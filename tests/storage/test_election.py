"""Of several candidates one leads, another follows when it dies, and who was deposed writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from typing_extensions import override

from clusterling.controllers.runtime import Runtime
from clusterling.storage import memory
from clusterling.storage.election import Election, Led, Term, acting, lead
from clusterling.storage.store import (
    Entry,
    Guard,
    GuardFailed,
    Limit,
    Op,
    Store,
    Unavailable,
)
from tests.controllers.conftest import PATIENCE_S, until
from tests.controllers.test_runtime import Recorder
from tests.registry.conftest import TurnedClock

LEASE_S = 9.0


class Severed(Led):
    """A way to the store that can be cut."""

    cut = False

    @override
    async def get(self, key: str) -> Entry | None:
        self._check()
        return await super().get(key)

    @override
    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        self._check()
        return await super().write(ops, guards, limits)

    def _check(self) -> None:
        if self.cut:
            raise Unavailable("cut off")


def candidate(store: Store, clock: TurnedClock, holder: str) -> Election:
    return Election(store, clock, holder=holder, lease_s=LEASE_S, retry_s=0.01)


@asynccontextmanager
async def running(*elections: Election) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(election.run(), name=election.holder) for election in elections]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until_true(condition: Callable[[], bool]) -> None:
    async def met() -> bool:
        return condition()

    await until(met)


async def elected(election: Election) -> Term:
    async with asyncio.timeout(PATIENCE_S):
        return await election.elected()


async def rounds(store: Store, count: int = 5) -> None:
    """Lets every candidate have some turns."""
    for _ in range(count):
        await asyncio.sleep(0.02)
        await store.fresh()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with memory.open() as store:
        yield store


async def test_of_many_candidates_one_leads_however_long_it_goes_on(store: Store) -> None:
    clock = TurnedClock()
    candidates = [candidate(store, clock, f"replica-{n}") for n in range(5)]
    async with running(*candidates):
        await until_true(lambda: any(one.term for one in candidates))
        leader = next(one for one in candidates if one.term)
        for _ in range(10):
            before = store.head()
            await until_true(lambda before=before: store.head() > before)  # type: ignore[misc]
            clock.turn(LEASE_S / 3)
            assert [one for one in candidates if one.term] == [leader]
        assert (await elected(leader)).number == 1


async def test_when_the_leader_dies_another_follows_after_its_lease(store: Store) -> None:
    clock = TurnedClock()
    way = Severed(store)
    first, second = candidate(way, clock, "first"), candidate(store, clock, "second")
    async with running(first):
        term = await elected(first)
        way.cut = True  # So it cannot step down, as a process that is killed cannot.
        async with running(second):
            await rounds(store)
            assert second.term is None
            clock.turn(LEASE_S + 0.1)
            follower = await elected(second)
            assert follower.number == term.number + 1
            await asyncio.wait_for(first.over(term), PATIENCE_S)
            assert first.term is None


async def test_a_leader_whose_store_comes_back_before_another_followed_leads_again_at_once(
    store: Store,
) -> None:
    clock = TurnedClock()
    way = Severed(store)
    first = candidate(way, clock, "first")
    async with running(first):
        term = await elected(first)
        way.cut = True
        clock.turn(LEASE_S * 2 / 3)
        await asyncio.wait_for(first.over(term), PATIENCE_S)
        way.cut = False
        again = await elected(first)
        assert again.number == term.number + 1 and again.guard != term.guard


async def test_a_leader_that_stops_is_followed_at_once(store: Store) -> None:
    clock = TurnedClock()
    first, second = candidate(store, clock, "first"), candidate(store, clock, "second")
    async with running(first):
        await elected(first)
    async with running(second):
        assert (await elected(second)).number == 2


async def test_who_waits_hears_of_a_leader_that_stops_without_looking_again(store: Store) -> None:
    clock = TurnedClock()
    first = candidate(store, clock, "first")
    patient = Election(store, clock, holder="patient", lease_s=4 * PATIENCE_S, retry_s=2 * PATIENCE_S)
    async with running(first):
        await elected(first)
        async with running(patient):
            await rounds(store)
            assert patient.term is None
            for task in [task for task in asyncio.all_tasks() if task.get_name() == "first"]:
                task.cancel()
            assert (await elected(patient)).number == 2


async def test_a_deposed_leader_drops_nothing(store: Store) -> None:
    clock = TurnedClock()
    led = Led(store)
    await store.write([Op("a/b/c", b"")])
    first, second = candidate(store, clock, "first"), candidate(store, clock, "second")
    async with running(first):
        old = await elected(first)
    async with running(second):
        new = await elected(second)
        with acting(old), pytest.raises(GuardFailed):
            await led.drop("a/")
        assert await store.count("a/") == 1
        with acting(new):
            await led.drop("a/")
        assert await store.count("a/") == 0


async def test_work_that_does_not_end_in_order_with_its_term_begins_again_with_the_next(store: Store) -> None:
    clock = TurnedClock()
    way = Severed(store)
    only = candidate(way, clock, "only")
    begun: list[int] = []

    async def work() -> None:
        begun.append(len(begun))
        try:
            await asyncio.Event().wait()
        finally:
            if len(begun) == 1:
                raise RuntimeError("told to fail")

    async with running(only):
        leading = asyncio.create_task(lead(only, work))
        await until_true(lambda: len(begun) == 1)
        way.cut = True
        clock.turn(LEASE_S)
        await until_true(lambda: only.term is None)
        way.cut = False
        await rounds(store)
        clock.turn(LEASE_S + 0.1)
        await until_true(lambda: len(begun) == 2)
        leading.cancel()
        await asyncio.wait({leading})


async def test_a_deposed_leader_that_does_not_know_writes_nothing(store: Store) -> None:
    clock = TurnedClock()
    led = Led(store)
    first, second = candidate(store, clock, "first"), candidate(store, clock, "second")
    async with running(first):
        old = await elected(first)
    with acting(old):
        await led.write([Op("a/b/c", b"in office")])
    async with running(second):
        new = await elected(second)
        with acting(old), pytest.raises(GuardFailed):
            await led.write([Op("a/b/c", b"late")])
        with acting(new):
            await led.write([Op("a/b/d", b"in office")])
        await led.write([Op("a/b/e", b"of no leader")])
    entry = await store.get("a/b/c")
    assert entry is not None and entry.value == b"in office"


async def test_a_leader_whose_store_does_not_answer_gives_up_before_another_may_begin(store: Store) -> None:
    clock = TurnedClock()
    way = Severed(store)
    first = candidate(way, clock, "first")
    async with running(first):
        term = await elected(first)
        way.cut = True
        clock.turn(LEASE_S * 2 / 3)
        assert first.term is None
        await asyncio.wait_for(first.over(term), PATIENCE_S)


async def test_work_runs_while_leading_and_is_cancelled_with_the_term(store: Store) -> None:
    clock = TurnedClock()
    way = Severed(store)
    first, second = candidate(way, clock, "first"), candidate(store, clock, "second")
    begun: list[str] = []
    ended: list[str] = []

    def working(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def work() -> None:
            begun.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return work

    async with running(first):
        leading = asyncio.create_task(lead(first, working("first")))
        await until_true(lambda: begun == ["first"])
        way.cut = True
        async with running(second):
            following = asyncio.create_task(lead(second, working("second")))
            await rounds(store)
            assert begun == ["first"]
            clock.turn(LEASE_S + 0.1)
            await until_true(lambda: begun == ["first", "second"] and ended == ["first"])
            for task in (leading, following):
                task.cancel()
            await asyncio.wait({leading, following})


async def test_controllers_of_two_replicas_work_on_one_only_and_the_other_goes_on_at_its_cursor(
    store: Store,
) -> None:
    clock = TurnedClock()
    first, second = candidate(store, clock, "first"), candidate(store, clock, "second")
    one, two = Recorder(), Recorder()
    led = Led(store)
    runtimes = Runtime(led, (one,), clock), Runtime(led, (two,), clock)
    await store.write([Op("a/1", b"{}")])
    async with running(second):
        following = asyncio.create_task(lead(second, runtimes[1].run))
        async with running(first):
            leading = asyncio.create_task(lead(first, runtimes[0].run))
            await until_true(lambda: one.seen + two.seen == ["a/1"])
            winner, loser = (one, two) if one.seen else (two, one)
            await store.write([Op("a/2", b"{}")])
            await until_true(lambda: winner.seen == ["a/1", "a/2"])
            assert loser.seen == []
        for task in (leading, following):
            task.cancel()
        await asyncio.wait({leading, following})
