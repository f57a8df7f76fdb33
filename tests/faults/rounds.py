"""Rounds: load, faults meanwhile, then quiet; everything must be ready again, agree, and explain what was answered."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

import aiohttp

from clusterling.storage.opening import open_store
from clusterling.storage.store import Store
from clusterling.tenancy.authentication.tokens import new_token
from tests.faults.checker import Violation, check
from tests.faults.history import History, Key, Outcome, Write
from tests.faults.leaders import Leaders
from tests.faults.network import Way
from tests.faults.plan import Doing, Fault, drawn
from tests.faults.replicas import START_S, Replica
from tests.faults.restoring import Restoring
from tests.faults.stores import Server
from tests.faults.workload import (
    PATIENCE_S,
    PREFIX,
    Clients,
    Collection,
    Reader,
    Watcher,
    Writer,
    come_and_go,
    config_maps,
    delete_namespace,
    make_cluster,
    make_widgets,
    widgets,
)

REPLICAS: Final = 3
WRITERS: Final = 4  # For each collection.
READERS: Final = 3
WATCHERS: Final = 3  # For each collection; one of them lags.
RESTORES: Final = 0.1  # So many of the rounds put the store back to a backup, instead of other faults.
FAIL_OVER_S: Final = 15.0
ROUNDS_TO_DELETE: Final = 3  # Faults may take the leader again and again, but not for ever.
LAG_S: Final = 1.5
LOAD_AFTER_S: Final = 0.7
READY_S: Final = 15.0  # After the last fault is undone, every replica is ready within so long, by itself.
CAUGHT_UP_S: Final = 10.0  # After that, every watcher has come to the end within so long.


@dataclass
class Result:
    """One round. `line` says in short what it was."""

    seed: int
    line: str
    violations: Sequence[Violation]
    history: History
    faults: Sequence[str]


class Service:
    """Three replicas over one store, for many rounds."""

    def __init__(
        self,
        server: Server,
        replicas: Sequence[Replica],
        direct: Store,
        token: str,
        direct_ways: Sequence[Way],
    ) -> None:
        """`direct` is the harness's own look at the store, by ways that have no faults of their own."""
        self.direct_ways = direct_ways
        self.server = server
        self.replicas = replicas
        self.direct = direct
        self.token = token
        self.leaders = Leaders(direct)
        self.rounds = 0
        self.deleting: list[tuple[int, str]] = []  # Since which round which namespace is being deleted.

    async def round(self, seed: int, only: str = "") -> Result:
        """One round; `only`: with that fault alone."""
        self.rounds += 1
        chance = random.Random(seed)
        restores = only == "restore" if only else chance.random() < RESTORES
        faults = [] if restores else drawn(chance, sorted(self.server.harms()), len(self.replicas), only)
        history = History()
        began = monotonic()
        # A connection that was made while a replica stood still must not hold up the rounds after it.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            # An attempt is one request: aiohttp would send some of them again where a connection broke.
            session._retry_connection = False
            clients = Clients(session, self.replicas, self.token, history, chance)
            name = f"n{self.rounds}-{seed}"
            violations: list[Violation] = []
            if restores:
                self.deleting.clear()
                restoring = Restoring(self, clients, chance, name)
                run: Restoring | _Round = restoring
                await restoring.run()
                violations = await asyncio.to_thread(check, history)
                history = clients.history
            else:
                run = working = _Round(self, clients, chance, name)
                await working.run(faults)
            self._note_deaths(clients)
            await self._see_deleted(clients, self.rounds - ROUNDS_TO_DELETE)
        violations += await asyncio.to_thread(check, history)
        writes = history.writes
        unknown = sum(write.outcome is Outcome.UNKNOWN for write in writes)
        away = sum(write.code == 503 for write in writes)
        line = (
            f"{len(writes)} writes ({unknown} unknown, {away} told 503), {len(history.reads)} reads, {len(history.lists)} lists,"
            f" {sum(len(stream.events) for stream in history.streams)} events, {run.relists} relists,"
            f" {self.leaders.terms} terms, ready after {run.ready_s:.1f} s, {monotonic() - began:.1f} s in all"
        )
        what = ["restore"] if restores else [str(fault) for fault in faults]
        return Result(seed, line, violations, history, what)

    async def finish(self) -> Sequence[str]:
        """When all rounds are over: what a leader has not seen through within the time of a fail-over."""
        history = History()
        async with aiohttp.ClientSession() as session:
            clients = Clients(session, self.replicas, self.token, history, random.Random(0))
            await self._see_deleted(clients, self.rounds)
        return history.complaints

    async def _see_deleted(self, clients: Clients, before: int) -> None:
        """Forgets the namespaces that are gone; those of rounds up to `before` must be, once there are no faults, within the
        time of a fail-over."""
        deadline = monotonic() + FAIL_OVER_S
        while True:
            self.deleting = [one for one in self.deleting if not await self._is_gone(clients, one[1])]
            due = [one for one in self.deleting if one[0] <= before]
            if not due or monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        for since, path in due:
            clients.complain(f"{path} is there, which was deleted {self.rounds - since} rounds ago")
        self.deleting = [one for one in self.deleting if one not in due]

    async def _is_gone(self, clients: Clients, path: str) -> bool:
        answer = await clients.ask(clients.chance.choice(self.replicas), "GET", path)
        return answer.status == 404

    def _note_deaths(self, clients: Clients) -> None:
        """What is not a client's to see."""
        for replica in self.replicas:
            for death in replica.deaths:
                clients.complain(f"a replica died by itself: {death}")
            replica.deaths.clear()
        for complaint in self.leaders.complaints:
            clients.complain(complaint)
        self.leaders.complaints.clear()


class _Round:
    def __init__(self, service: Service, clients: Clients, chance: random.Random, name: str) -> None:
        self._service = service
        self._clients = clients
        self._chance = chance
        self._name = name
        self._going = True
        self._watchers: list[Watcher] = []
        self.ready_s = 0.0

    @property
    def relists(self) -> int:
        return sum(watcher.relists for watcher in self._watchers)

    def _derived(self) -> random.Random:
        return random.Random(self._chance.getrandbits(64))

    async def run(self, faults: Sequence[Fault]) -> None:
        service, clients = self._service, self._clients
        collections = await self._collections()
        self._watchers = [
            Watcher(
                f"w{number}", clients, collection, self._derived(), LAG_S if number % WATCHERS == 0 else 0.0
            )
            for number, collection in enumerate(
                collection for collection in collections for _ in range(WATCHERS)
            )
        ]
        watching = [asyncio.create_task(watcher.run()) for watcher in self._watchers]
        try:
            load = asyncio.gather(*self._load(collections))
            await Doing(service.replicas, service.server, service.direct, clients).all(faults)
            await self._until_ready()
            await asyncio.sleep(LOAD_AFTER_S)
            self._going = False
            await load
            await self._agree(collections)
            await self._catch_up(collections)
        finally:
            self._going = False
            for task in watching:
                task.cancel()
            for ended in await asyncio.gather(*watching, return_exceptions=True):
                if isinstance(ended, Exception):
                    clients.complain(f"a watcher failed: {ended!r}")

    async def _collections(self) -> list[Collection]:
        clusters = [f"{self._name}-a", f"{self._name}-b"]
        for cluster in clusters:
            await make_cluster(self._clients, cluster)
        await make_widgets(self._clients, clusters[1])
        return [config_maps(clusters[0]), widgets(clusters[1])]

    def _load(self, collections: Sequence[Collection]) -> list[Any]:
        going: Callable[[], bool] = lambda: self._going  # noqa: E731 - a name for what all are given
        writers = [
            Writer(f"{collection.cluster[-1]}{number}", self._clients, collection, self._derived()).run(going)
            for collection in collections
            for number in range(WRITERS)
        ]
        readers = [
            Reader(f"r{number}", self._clients, collections, self._derived()).run(going)
            for number in range(READERS)
        ]
        return [
            *writers,
            *readers,
            come_and_go(self._clients, f"{self._name}-c", going),
            self._have_deleted(collections[0].cluster),
        ]

    async def _have_deleted(self, cluster: str) -> None:
        path = await delete_namespace(self._clients, cluster)
        self._service.deleting.append((self._service.rounds, path))

    async def _until_ready(self) -> None:
        began = monotonic()
        missing = list(self._service.replicas)
        while missing and monotonic() - began < READY_S:
            missing = [one for one in missing if not await one.is_ready(self._clients.session)]
            await asyncio.sleep(0.05)
        self.ready_s = monotonic() - began
        for replica in missing:
            self._clients.complain(f"{replica.name} is not ready {READY_S:.0f} s after the last fault")

    async def _agree(self, collections: Sequence[Collection]) -> None:
        """A last object in each collection, which every watcher must be told of; then every replica is asked for all."""
        for collection in collections:
            write = Write(
                Key(collection.name, f"{PREFIX}-last"),
                "create",
                self._service.replicas[0].incarnation,
                0.0,
                self._clients.value("last"),
            )
            body = collection.object(write.key.name, write.value)
            await self._clients.write(
                self._service.replicas[0], collection, write, body, timeout_s=PATIENCE_S
            )
            if write.outcome is not Outcome.DONE:
                self._clients.complain(f"a write after all faults was told {write.code} {write.reason}")
            for replica in self._service.replicas:
                if await self._clients.list(replica, collection, weak=False) is None:
                    self._clients.complain(f"{replica.name} does not list after all faults")

    async def _catch_up(self, collections: Sequence[Collection]) -> None:
        ends = {
            listing.collection: listing.revision
            for listing in self._clients.history.lists[-len(collections) :]
        }
        for listing in self._clients.history.lists:
            ends[listing.collection] = max(
                ends.get(listing.collection, 0),
                max((state.revision for state in listing.items.values()), default=0),
            )
        deadline = monotonic() + CAUGHT_UP_S
        for watcher in self._watchers:
            watcher.lag_s = 0.0
        while monotonic() < deadline and self._behind(ends):
            await asyncio.sleep(0.05)
        for watcher in self._behind(ends):
            self._clients.complain(
                f"{watcher.name} has come to {watcher.reached} of {watcher.collection.name},"
                f" which is at {ends[watcher.collection.name]}"
            )

    def _behind(self, ends: dict[str, int]) -> list[Watcher]:
        return [watcher for watcher in self._watchers if watcher.reached < ends[watcher.collection.name]]


@asynccontextmanager
async def serving(server: Server, directory: Path) -> AsyncIterator[Service]:
    """Three replicas over the store, ready. What they log is kept in the directory."""
    token = new_token()
    replicas: list[Replica] = []
    ways: list[Way] = []
    try:
        for number in range(REPLICAS):
            own = server.ways()
            for way in own:
                await way.open()
                ways.append(way)
            replica = Replica(f"r{number}", directory / f"r{number}", token, server.url_by(own), own)
            replicas.append(replica)
        direct_ways = server.ways()
        for way in direct_ways:
            await way.open()
            ways.append(way)
        async with open_store(server.url_by(direct_ways)) as direct, aiohttp.ClientSession() as session:
            for replica in replicas:
                replica.start()
            deadline = monotonic() + START_S
            for replica in replicas:
                while not await replica.is_ready(session):
                    assert monotonic() < deadline, f"{replica.name} does not start: {replica.log}"
                    await asyncio.sleep(0.1)
            service = Service(server, replicas, direct, token, direct_ways)
            following = asyncio.create_task(service.leaders.run())
            try:
                yield service
            finally:
                following.cancel()
    finally:
        for replica in replicas:
            await asyncio.to_thread(replica.stop)
        for way in ways:
            await way.close()
        for log in server.logs():
            if log.exists():
                shutil.copy(log, directory / f"{server.name}-{log.parent.name}.log")


def keep(result: Result, directory: Path) -> Path:
    """Writes down what a failed round was."""
    path = directory / f"seed-{result.seed}"
    path.mkdir(parents=True, exist_ok=True)
    result.history.save(path / "history.jsonl")
    with (path / "violations").open("w") as file:
        for violation in result.violations:
            file.write(f"{violation.key}: {violation.text}\n")
    return path


def report(result: Result, keys_max: int = 3) -> str:
    """What is wrong with a round: the violations, and all that happened to the first keys that have any."""
    lines = [f"  {violation.key or ''} {violation.text}" for violation in result.violations[:30]]
    keys = list(dict.fromkeys(violation.key for violation in result.violations if violation.key))
    for key in keys[:keys_max]:
        lines += [f"  --- {key.collection} {key.name}", *(f"    {line}" for line in result.history.of(key))]
    return "\n".join(lines)
