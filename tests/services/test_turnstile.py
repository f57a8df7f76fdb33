"""Who may use the loop next."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from clusterling.services.turnstile import Turnstile


async def test_work_is_done_and_answered() -> None:
    assert await Turnstile().run("a", lambda: 42) == 42


async def test_what_work_raises_is_raised_to_its_caller_alone() -> None:
    turnstile = Turnstile()

    def fail() -> int:
        raise LookupError("mine")

    results = await asyncio.gather(
        turnstile.run("a", fail), turnstile.run("b", lambda: 1), return_exceptions=True
    )
    assert isinstance(results[0], LookupError)
    assert results[1] == 1
    assert turnstile.waiting == 0


async def test_slices_draw_everything_in_order() -> None:
    assert await Turnstile().slices("a", range(1000)) == list(range(1000))


async def test_a_short_job_passes_a_long_one_between_its_slices() -> None:
    ticks = itertools.count()
    turnstile = Turnstile(clock=lambda: float(next(ticks)))  # Every look at the clock ends a slice.
    order: list[str] = []

    def long() -> Iterator[None]:
        for step in range(5):
            order.append(f"long {step}")
            yield

    async def draw() -> None:
        await turnstile.slices("a", long())

    task = asyncio.create_task(draw())
    await asyncio.sleep(0)
    await turnstile.run("b", lambda: order.append("short"))
    await task
    assert order.index("short") < order.index("long 2")
    assert [one for one in order if one != "short"] == [f"long {step}" for step in range(5)]


async def test_the_loop_runs_others_between_two_slices() -> None:
    ticks = itertools.count()
    turnstile = Turnstile(clock=lambda: float(next(ticks)))
    seen: list[int] = []
    drawn: list[int] = []

    async def bystander() -> None:
        while len(drawn) < 10:
            seen.append(len(drawn))
            await asyncio.sleep(0)

    def items() -> Iterator[int]:
        for item in range(10):
            drawn.append(item)
            yield item

    await asyncio.gather(turnstile.slices("a", items()), bystander())
    assert len(set(seen)) >= 9


async def test_work_whose_caller_has_gone_is_not_done() -> None:
    turnstile = Turnstile()
    done: list[str] = []
    task = asyncio.create_task(turnstile.run("a", lambda: done.append("a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turnstile.run("b", lambda: done.append("b"))
    assert done == ["b"]
