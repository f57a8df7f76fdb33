"""Who may use the loop next."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from clusterling.services.turnstile import BURST_S, ROUNDS, SLICE_S, Turnstile


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


async def rounds_between_slices(comes: str | None, slice_s: float) -> list[int]:
    """How often the loop went round between slices of a tenant's long work, so long each, where somebody comes at each."""
    now = 0.0
    turnstile = Turnstile(clock=lambda: now)
    rounds = 0
    seen: list[int] = []
    loop = asyncio.get_running_loop()

    def go_round() -> None:
        nonlocal rounds
        rounds += 1
        if len(seen) < 5:
            loop.call_soon(go_round)

    def items() -> Iterator[None]:
        nonlocal now
        for _ in range(5):
            seen.append(rounds)
            if comes is not None:
                turnstile.heed(comes)
            now += slice_s
            yield

    loop.call_soon(go_round)
    await turnstile.slices("long", items())
    return [after - before for before, after in itertools.pairwise(seen)]


async def test_the_loop_rests_between_slices_while_somebody_is_about_who_has_none() -> None:
    assert min(await rounds_between_slices("short", 2 * BURST_S)) > ROUNDS


@pytest.mark.parametrize("comes", [None, "long"])
async def test_it_does_not_rest_while_nobody_else_is_about(comes: str | None) -> None:
    assert max(await rounds_between_slices(comes, 2 * BURST_S)) <= ROUNDS


async def test_what_is_over_in_a_moment_is_done_without_a_rest() -> None:
    assert max(await rounds_between_slices("short", SLICE_S)) <= ROUNDS


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


class Bench:
    """A turnstile on a clock of its own, which only work moves; and what was done, in order."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.turnstile = Turnstile(clock=lambda: self.now_s)
        self.done: list[str] = []

    def step(self, name: str, cost_s: float, steps: int = 1) -> Callable[[float], bool]:
        """Work of so many steps, each of which takes so long."""
        left = steps

        def step(until: float) -> bool:
            nonlocal left
            self.now_s += cost_s
            self.done.append(name)
            left -= 1
            return not left

        return step

    async def work(self, slices: int) -> None:
        """Returns when so many were done."""
        while len(self.done) < slices:
            await asyncio.sleep(0)

    async def finish(self) -> None:
        while self.turnstile.waiting:
            await asyncio.sleep(0)


async def test_tenants_have_their_turns_by_the_time_they_take_and_not_by_how_much_waits() -> None:
    bench = Bench()
    for _ in range(50):
        bench.turnstile.add("loud", bench.step("loud", SLICE_S, steps=4))
    bench.turnstile.add("quiet", bench.step("quiet", SLICE_S, steps=10))
    await bench.finish()
    assert bench.done[:20].count("quiet") >= 9


async def test_who_took_long_is_passed_over_until_others_have_had_as_much() -> None:
    bench = Bench()
    bench.turnstile.add("other", bench.step("other", SLICE_S, steps=40))
    for _ in range(5):
        bench.turnstile.add("uncut", bench.step("uncut", 10 * SLICE_S))
    await bench.finish()
    first, second = [place for place, name in enumerate(bench.done) if name == "uncut"][:2]
    assert second - first >= 8


async def test_what_was_taken_while_nobody_waited_is_owed_to_nobody() -> None:
    bench = Bench()
    bench.turnstile.add("a", bench.step("a", SLICE_S, steps=100))
    await bench.work(20)
    bench.turnstile.add("b", bench.step("b", SLICE_S, steps=10))
    await bench.finish()
    begun = bench.done.index("b")
    assert bench.done[begun : begun + 8].count("a") >= 2


async def test_who_comes_anew_waits_for_one_slice_however_many_are_at_it() -> None:
    bench = Bench()
    for number in range(20):
        bench.turnstile.add(number, bench.step("old", SLICE_S, steps=50))
    await bench.work(60)
    before = len(bench.done)
    bench.turnstile.add("new", bench.step("new", SLICE_S / 10))
    await bench.finish()
    assert bench.done.index("new") <= before + 1


async def test_who_always_has_a_little_does_not_always_come_anew() -> None:
    bench = Bench()
    bench.turnstile.add("long", bench.step("long", SLICE_S, steps=10))

    while bench.done.count("long") < 10 and len(bench.done) < 1_000:
        step = bench.step("little", SLICE_S / 2)
        await bench.turnstile.run("little", partial(step, 0.0))
    assert bench.done.count("little") <= 50


async def test_of_one_tenant_what_is_short_does_not_stand_behind_what_is_long() -> None:
    bench = Bench()
    for number in range(50):
        bench.turnstile.add("a", bench.step(f"long {number}", SLICE_S, steps=5))
    await bench.work(120)
    before = len(bench.done)
    bench.turnstile.add("a", bench.step("short", SLICE_S / 10))
    await bench.finish()
    assert bench.done.index("short") <= before + 2


async def test_long_work_is_seen_through_before_the_next() -> None:
    bench = Bench()
    for name in ("first", "second"):
        bench.turnstile.add("a", bench.step(name, SLICE_S, steps=10))
    await bench.finish()
    assert bench.done.index("second", 2) > len(bench.done) // 2 - 2


async def test_a_turn_is_charged_for_what_follows_it() -> None:
    bench = Bench()
    order: list[str] = []

    async def work(tenant: str, cost_s: float) -> None:
        for _ in range(6):
            await bench.turnstile.turn(tenant, cost_s)
            order.append(tenant)

    await asyncio.gather(work("cheap", SLICE_S), work("dear", 3 * SLICE_S))
    assert order[:8].count("cheap") >= 5
