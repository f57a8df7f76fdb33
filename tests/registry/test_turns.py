"""Lines before objects: one at a time, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from clusterling.registry import turns
from clusterling.registry.turns import Turns


async def test_who_comes_second_has_the_turn_after_the_first() -> None:
    line, seen = Turns(), []
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with line.of("a"):
            entered.set()
            await leave.wait()
            seen.append("first")

    async def second() -> None:
        await entered.wait()
        leave.set()
        async with line.of("a"):
            seen.append("second")

    await asyncio.gather(second(), first())
    assert seen == ["first", "second"]


async def test_lines_before_other_objects_are_others() -> None:
    line = Turns()
    async with line.of("a"), line.of("b"):
        pass


async def test_who_has_waited_long_enough_goes_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_S", 0.001)
    line = Turns()
    async with line.of("a"), line.of("a"), line.of("a"):
        pass
    async with line.of("a"):
        pass


async def test_who_is_cancelled_leaves_the_line() -> None:
    line = Turns()
    async with line.of("a"):
        waiting = asyncio.create_task(_stand(line))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with line.of("a"):
        pass
    assert not line.standing


async def _stand(line: Turns) -> None:
    async with line.of("a"):
        pass
