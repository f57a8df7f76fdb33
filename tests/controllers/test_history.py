"""History is kept for five minutes, and when the store had come how far is noted for an hour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from typing_extensions import override

from clusterling.controllers import history
from clusterling.storage import memory
from clusterling.storage.store import Compacted, Store
from clusterling.testing.store_contract import PATIENCE_S, put
from tests.tenancy.clocks import Turned


class Rounds(Turned):
    """Counts how often the loop has looked at it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @override
    def monotonic(self) -> float:
        self.count += 1
        return super().monotonic()

    async def pass_by(self, rounds: int = 3) -> None:
        await until(lambda count=self.count + rounds: self.count >= count)  # type: ignore[misc]


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def looked_after() -> AsyncIterator[tuple[Store, Rounds]]:
    clock = Rounds()
    async with memory.open() as store:
        task = asyncio.create_task(history.run(store, clock, every_s=0.001))
        try:
            yield store, clock
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_history_is_served_for_five_minutes_and_forgotten_then() -> None:
    async with looked_after() as (store, clock):
        first = await put(store, "apps/things/ns/a", b"1")
        await put(store, "apps/things/ns/a", b"2")
        await clock.pass_by()
        clock.turn(timedelta(seconds=history.KEPT_S - 1))
        await put(store, "apps/things/ns/a", b"3")
        await clock.pass_by()
        assert (await store.list("", revision=first)).entries[0].value == b"1"
        clock.turn(timedelta(seconds=2))
        await clock.pass_by()
        with pytest.raises(Compacted):
            await store.list("", revision=first)
        entry = await store.get("apps/things/ns/a")
        assert entry is not None and entry.value == b"3"


async def test_an_idle_store_is_not_written() -> None:
    async with looked_after() as (store, clock):
        await put(store, "apps/things/ns/a", b"1")
        await clock.pass_by()
        head = store.head()
        clock.turn(timedelta(minutes=1))
        await clock.pass_by(10)
        assert store.head() == head


async def test_a_revision_is_known_by_its_age() -> None:
    async with looked_after() as (store, clock):
        begun = clock.now().timestamp()
        revisions = []
        for number in range(history.TIMES_MAX + 30):
            revisions.append(await put(store, "apps/things/ns/a", b"%d" % number))
            head = store.head()
            await until(lambda head=head: store.head() > head)  # type: ignore[misc]
            clock.turn(timedelta(seconds=30))
        assert await history.revision_at(store, begun) == 0
        at = await history.revision_at(store, begun + 30 * 100)
        assert revisions[100] <= at < revisions[101]
        assert await history.revision_at(store, begun + 1e9) >= revisions[-1]


async def test_a_store_that_nobody_looked_after_knows_no_ages() -> None:
    async with memory.open() as store:
        assert await history.revision_at(store, 1e12) == 0
