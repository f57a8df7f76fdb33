"""Which faults a day has, and when: all drawn from its seed."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from tests.clients.day.way import Way
from tests.clients.day.world import World

DAY_MINUTES: Final = 1440
QUIET_SHARE: Final = 0.03  # Of the day, at its end.


@dataclass(frozen=True, slots=True)
class Fault:
    """From a minute on, for some minutes."""

    minute: int
    minutes: float
    what: str
    operator: int

    @override
    def __str__(self) -> str:
        return f"{self.minute // 60:02}:{self.minute % 60:02} {self.what} for {self.minutes:.0f} min"


@dataclass(frozen=True, slots=True)
class Kind:
    """How often in a day, and for how many minutes at least and at most."""

    a_day: int
    least: float
    most: float


KINDS: Final[Mapping[str, Kind]] = {
    "cut watches": Kind(120, 0, 0),
    "refuse": Kind(24, 2, 10),
    "conflict": Kind(24, 2, 10),
    "stall": Kind(12, 2, 25),
    "part one": Kind(16, 3, 45),
    "part both": Kind(12, 8, 35),
    "kill server": Kind(8, 0, 0),
    "kill leader": Kind(8, 0, 0),
    "kill standby": Kind(4, 0, 0),
    "pause leader": Kind(6, 10, 60),
}


def drawn(chance: random.Random, minutes: int) -> list[Fault]:
    """The faults of so many minutes, at least one of each kind, in order."""
    last = int(minutes * (1 - QUIET_SHARE))
    faults = []
    for what, kind in KINDS.items():
        for _ in range(max(1, round(kind.a_day * minutes / DAY_MINUTES))):
            length = chance.uniform(kind.least, kind.most)
            start = chance.randrange(min(20, last // 4), max(21, last - round(length)))
            faults.append(Fault(start, length, what, chance.randrange(2)))
    return sorted(faults, key=lambda fault: fault.minute)


async def happen(fault: Fault, world: World, minute_s: float) -> None:
    """One fault, from its beginning to its end."""
    length_s = fault.minutes * minute_s
    operator = world.operators[fault.operator]
    ways = [one.way for one in world.operators]
    leader = world.leading() or operator
    match fault.what:
        case "cut watches":
            operator.way.cut_watches()
        case "refuse":
            await _for(length_s, [operator.way], lambda way: setattr(way, "refusing", 0.5))
        case "conflict":
            await _for(length_s, [operator.way], lambda way: setattr(way, "conflicting", 0.5))
        case "stall":
            await _for(length_s, [operator.way], Way.stall)
        case "part one":
            await _for(length_s, [operator.way], Way.shut)
        case "part both":
            await _for(length_s, ways, Way.shut)
        case "kill server":
            world.server.kill()
        case "kill leader":
            leader.kill()
        case "kill standby":
            next(one for one in world.operators if one is not leader).kill()
        case "pause leader":
            leader.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(length_s)
            finally:
                leader.signal(signal.SIGCONT)


async def _for(length_s: float, ways: list[Way], harm: Callable[[Way], None]) -> None:
    for way in ways:
        harm(way)
    try:
        await asyncio.sleep(length_s)
    finally:
        for way in ways:
            way.heal()
