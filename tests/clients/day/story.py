"""One day, from its seed to what was wrong with it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from tests.clients.day.faults import DAY_MINUTES, drawn, happen
from tests.clients.day.judge import ALL_GARDENS, CONFIGMAPS, LEASE, Terms, wrong
from tests.clients.day.users import Api, Users
from tests.clients.day.world import World, running

MINUTE_S: Final = 0.1
SETTLE_S: Final = 60.0
LOOK_S: Final = 0.25

# What always happens on the ways, beside the faults: shares of writes, of requests, of pieces of watches.
LOST: Final = 0.004
LATE: Final = 0.02
TORN: Final = 0.002


@dataclass
class Day:
    """`complaints` is empty after a good one."""

    seed: int
    minutes: int = DAY_MINUTES
    minute_s: float = MINUTE_S
    complaints: list[str] = field(default_factory=list)
    line: str = ""


async def live(day: Day, directory: Path, binary: Path) -> Day:
    """The day in a world of its own, its logs in the directory."""
    chance = random.Random(day.seed)
    faults = drawn(chance, day.minutes)
    (directory / "faults.txt").write_text("\n".join(map(str, faults)))
    began = time.monotonic()
    async with running(directory, binary, chance, day.minute_s) as world, aiohttp.ClientSession() as session:
        users = Users(Api(session, world.cluster.url, world.cluster.token), chance)
        await users.move_in()
        for operator in world.operators:
            operator.start()
            operator.way.lost, operator.way.late, operator.way.torn = LOST, LATE, TORN
        terms = Terms(users.api, world)
        followers = [asyncio.create_task(terms.follow(path)) for path in (LEASE, CONFIGMAPS, ALL_GARDENS)]
        try:
            async with asyncio.TaskGroup() as happening:
                for minute in range(day.minutes):
                    due = asyncio.create_task(asyncio.sleep(day.minute_s))
                    for fault in faults:
                        if fault.minute == minute:
                            happening.create_task(happen(fault, world, day.minute_s))
                    await users.minute()
                    await due
            left = await _settled(world, users)
        finally:
            for follower in followers:
                follower.cancel()
            ended = await asyncio.gather(*followers, return_exceptions=True)
        day.complaints = [
            *left,
            *world.complaints,
            *world.streams.wrong(),
            *map(repr, _failures(ended)),
            *_deaths(world),
        ]
    kinds = Counter(fault.what for fault in faults)
    gone = sum(one.way.expired for one in world.operators)
    harmed = sum(one.way.harmed for one in world.operators)
    day.line = (
        f"SEED={day.seed} {len(day.complaints)} complaints: {day.minutes} minutes in {time.monotonic() - began:.0f} s, "
        f"{users.acts} acts, {len(users.gardens)} gardens and {len(users.harvested)} harvested, "
        f"{world.streams.events()} events told in {sum(map(len, world.streams.of.values()))} watches, {len(terms.holders)} terms, {gone} times 410, {harmed} requests harmed, "
        f"server started {world.server.starts} times; {', '.join(f'{n} {what}' for what, n in kinds.items())}"
    )
    return day


async def _settled(world: World, users: Users) -> list[str]:
    """What is still wrong when everything has had its time."""
    for operator in world.operators:
        operator.way.lost = operator.way.late = operator.way.torn = 0.0
        operator.way.heal()
    deadline = time.monotonic() + SETTLE_S
    while (left := await wrong(world, users)) and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_S)
    return left


def _failures(ended: list[BaseException | None]) -> list[BaseException]:
    return [one for one in ended if one is not None and not isinstance(one, asyncio.CancelledError)]


def _deaths(world: World) -> list[str]:
    """A server may not end by itself; an operator may where it lost its lease, and never by a panic."""
    found = [f"the server ended with {code}" for code in world.server.ends]
    for operator in world.operators:
        said = operator.log.read_text(errors="replace")
        if "panic:" in said or "fatal error:" in said:
            found.append(f"{operator.name}: {said[said.index('panic:') :][:1000]}")
    return found
