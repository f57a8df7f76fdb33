"""Which faults a round has, and when: all drawn from its seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

from clusterling.storage.store import StorageError, Store
from tests.faults.replicas import Replica
from tests.faults.stores import Server
from tests.faults.workload import Clients

FAULTS_S: Final = 5.0  # Within which faults begin and end.
FAULTS_MIN: Final = 2
FAULTS_MAX: Final = 4
LONGEST_S: Final = 3.0
DAY_S: Final = 86_400.0
GRACE_S: Final = 0.05  # What was on its way when a way was closed has arrived.


@dataclass(frozen=True, slots=True)
class Fault:
    """Done at `start` seconds, undone after `length`."""

    start: float
    length: float
    what: str
    replica: int = 0
    amount: float = 0.0

    @override
    def __str__(self) -> str:
        return f"{self.what}{f' r{self.replica}' if self.what in ON_REPLICAS else ''}"


ON_REPLICAS: Final = (
    "kill",
    "restart",
    "pause",
    "cut",
    "slow",
    "stall",
    "lose questions",
    "lose answers",
    "part",
    "clock",
)
ON_LEADER: Final = ("kill leader", "pause leader")
ON_HISTORY: Final = ("compact",)
_WEIGHTS: Final[Mapping[str, int]] = {
    "kill": 3,
    "pause": 3,
    "cut": 2,
    "kill leader": 2,
    "pause leader": 2,
    "compact": 2,
}
_STORE_SHARE: Final = 0.35  # Of the faults that are the store's own.


def drawn(chance: random.Random, harms: Sequence[str], replicas: int, only: str = "") -> list[Fault]:
    """Some faults, in the order of their beginnings. `only`: all of them that one."""
    others = [*ON_REPLICAS, *ON_LEADER, *ON_HISTORY]
    weights = [_WEIGHTS.get(what, 1) for what in others]
    faults = []
    for _ in range(chance.randint(FAULTS_MIN, FAULTS_MAX)):
        start = chance.uniform(0.3, FAULTS_S - 0.5)
        length = min(chance.uniform(0.1, LONGEST_S), FAULTS_S - start)
        own = chance.random() < _STORE_SHARE
        what = only or (chance.choice(harms) if own else chance.choices(others, weights)[0])
        amount = chance.uniform(0.02, 0.3) if what == "slow" else chance.uniform(-DAY_S, DAY_S)
        faults.append(Fault(start, length, what, chance.randrange(replicas), amount))
    return sorted(faults, key=lambda fault: fault.start)


@dataclass
class Doing:
    """Does faults to three replicas and their store."""

    replicas: Sequence[Replica]
    server: Server
    direct: Store
    clients: Clients
    store_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def all(self, faults: Sequence[Fault]) -> None:
        """Returns when all are undone."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(self._one(fault), name=str(fault))

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.start)
        harm = self.server.harms().get(fault.what)
        if harm is not None:
            async with self.store_lock:
                await asyncio.to_thread(harm.begin)
                try:
                    await asyncio.sleep(fault.length)
                finally:
                    await asyncio.to_thread(harm.end)
        elif fault.what == "compact":
            with suppress(
                StorageError
            ):  # The store may have a fault of its own now; there will be other rounds.
                await self.direct.compact(self.direct.head())
        else:
            await self._to_replica(fault)

    async def _to_replica(self, fault: Fault) -> None:
        replica = self.leader() if fault.what in ON_LEADER else self.replicas[fault.replica]
        match fault.what.split()[0]:
            case "kill":
                async with replica.lock:
                    await self._between(replica.kill, fault.length, replica.revive)
            case "pause":
                async with replica.lock:
                    await self._between(replica.pause, fault.length, replica.resume)
            case "restart":
                async with replica.lock:
                    await replica.restart()
            case "clock":
                replica.set_clock(fault.amount)
            case "cut":
                for way in replica.ways:
                    way.cut()
            case _:
                async with replica.ways_lock:
                    await self._harm_ways(replica, fault)

    async def _harm_ways(self, replica: Replica, fault: Fault) -> None:
        kinds = {
            "slow": "slow",
            "stall": "stalled",
            "lose questions": "lost-asking",
            "lose answers": "lost-answering",
            "part": "closed",
        }
        for way in replica.ways:
            way.harm(kinds[fault.what], fault.amount)
        healing = asyncio.create_task(asyncio.sleep(fault.length))
        if fault.what != "slow":
            await asyncio.sleep(GRACE_S)
            ready = asyncio.create_task(replica.is_ready(self.clients.session))
            await asyncio.wait({ready, healing}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not healing.done() and ready.result():
                self.clients.complain(
                    f"{replica.name} cannot reach the store ({fault.what}), and says it is ready"
                )
        await healing
        for way in replica.ways:
            way.heal()

    async def _between(self, begin: Callable[[], None], length: float, end: Callable[[], None]) -> None:
        begin()
        try:
            await asyncio.sleep(length)
        finally:
            end()

    def leader(self) -> Replica:
        """The one that was elected last."""
        return max(self.replicas, key=lambda replica: replica.last_term())
