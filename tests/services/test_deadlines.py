"""Deadlines: one timer for all that runs."""

from __future__ import annotations

import asyncio

import pytest

from clusterling.services.deadlines import Deadline, Deadlines


async def _late(deadlines: Deadlines, after_s: float = 0.0) -> str:
    await asyncio.sleep(after_s)
    try:
        with Deadline(deadlines):
            await asyncio.sleep(60)
    except TimeoutError:
        return "late"
    return "done"


async def test_everybody_has_the_same_time_whenever_he_began() -> None:
    deadlines = Deadlines(0.02)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_late(deadlines, after_s)) for after_s in (0.0, 0.0, 0.01, 0.05)]
    assert [task.result() for task in tasks] == ["late"] * 4
    # The timer that waits for nobody any more does not keep the next from having his.
    assert await _late(deadlines) == "late"


async def test_who_is_done_in_time_is_left_alone_afterwards() -> None:
    deadlines = Deadlines(0.02)
    with Deadline(deadlines):
        await asyncio.sleep(0)
    await asyncio.sleep(0.04)


async def test_a_cancellation_by_others_stays_one() -> None:
    deadlines = Deadlines(60)
    task = asyncio.create_task(_late(deadlines))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_by_others_when_he_is_late_too_is_cancelled() -> None:
    deadlines = Deadlines(0.01)
    reached = asyncio.Event()

    async def stubborn() -> None:
        with Deadline(deadlines):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                reached.set()
                await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_body_is_not_mistaken_for_lateness() -> None:
    late = Deadline(Deadlines(60))
    with pytest.raises(TimeoutError, match="mine"), late:
        raise TimeoutError("mine")
    assert not late.late


def test_deadlines_hold_in_a_second_loop_too() -> None:
    deadlines = Deadlines(0.01)

    async def short() -> None:
        with Deadline(deadlines):
            await asyncio.sleep(0)

    asyncio.run(short())
    assert asyncio.run(_late(deadlines)) == "late"
