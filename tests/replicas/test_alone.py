"""Writes where nobody else seems to write: they ask nothing before, and believe nothing that another has changed unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from typing_extensions import override

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import ApiServer
from clusterling.services import barrier
from clusterling.services.client import Client
from clusterling.storage.backed import BackedStore, serve
from clusterling.storage.backend import Committed, Transaction
from clusterling.storage.memory import MemoryBackend
from clusterling.storage.others import OTHERS
from clusterling.storage.store import GuardFailed, Op, StorageError, UnknownOutcome
from tests.controllers.conftest import config_map
from tests.replicas.test_two_replicas import MAPS


class Accompanied(MemoryBackend):
    """A backend to which others write. What they have written is told when somebody asks, or commits."""

    def __init__(self) -> None:
        super().__init__()
        self.unseen: list[Transaction] = []  # Written by others, and not told yet.
        self.told = 1  # How often others were told to have written.
        self.asked = 0
        self.lost = 0  # Answers to the next commits of those that depend on others, lost after the commit.

    def others(self) -> int:
        return self.told

    async def _tell(self) -> None:
        unseen, self.unseen = self.unseen, []
        if unseen:
            self.told += 1
            assert all(isinstance(outcome, Committed) for outcome in await super().commit(unseen))

    @override
    async def fresh(self) -> int:
        self.asked += 1
        await self._tell()
        return await super().fresh()

    @override
    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        await self._tell()
        outcomes: list[Committed | StorageError] = []
        for transaction in transactions:
            counts = [guard.revision for guard in transaction.guards if guard.key == OTHERS]
            if any(count != self.told for count in counts):
                outcomes.append(GuardFailed(OTHERS))
                continue
            rest = [guard for guard in transaction.guards if guard.key != OTHERS]
            outcomes += await super().commit([Transaction(transaction.ops, rest)])
            if counts and self.lost:
                self.lost -= 1
                outcomes[-1] = UnknownOutcome("the answer was lost")
        return outcomes


@dataclass(slots=True)
class Place:
    backend: Accompanied
    store: BackedStore
    team: Client

    async def asked_by(self, request: Awaitable[object]) -> int:
        """How often the store was asked for the request, begun by a replica that takes itself to be alone."""
        await asyncio.sleep(0.01)  # `ALONE_S` is over.
        before = self.backend.asked
        await request
        return self.backend.asked - before

    async def taken_away(self, name: str) -> None:
        """Another replica deletes the ConfigMap."""
        [entry] = [
            entry
            for entry in (await self.store.list("")).entries
            if "/configmaps/" in entry.key and entry.key.endswith(f"/{name}")
        ]
        self.backend.unseen.append(Transaction([Op(entry.key, None, entry.revision)]))


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(barrier, "ALONE_S", 0.0)
    async with _placed() as place:
        yield place


@asynccontextmanager
async def _placed() -> AsyncIterator[Place]:
    backend = Accompanied()
    async with serve(backend) as store, ApiServer(store, run_controllers=False).running() as server:
        await server.clusters.create("team")
        team = server.client("team")
        await team.get(MAPS)
        yield Place(backend, store, team)


async def refused(request: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await request
    return caught.value


async def made(place: Place, name: str) -> Object:
    return await place.team.post(MAPS, config_map(name))


async def test_a_write_that_commits_asks_nothing(place: Place) -> None:
    team = place.team
    assert await place.asked_by(made(place, "a")) == 0
    assert await place.asked_by(team.put(f"{MAPS}/a", config_map("a") | {"data": {"x": "1"}})) == 0
    assert await place.asked_by(team.delete(f"{MAPS}/a")) == 0
    assert await place.asked_by(team.get(MAPS)) == 1


async def test_a_write_that_commits_nothing_asks_afterwards(place: Place) -> None:
    team = place.team
    one = await made(place, "a")
    assert await place.asked_by(team.put(f"{MAPS}/a", one)) == 1
    assert await place.asked_by(team.post(f"{MAPS}?dryRun=All", config_map("b"))) == 1
    assert await place.asked_by(refused(team.delete(f"{MAPS}/none"))) == 1
    assert await place.asked_by(refused(team.post(MAPS, config_map("Not a name")))) == 1


async def test_who_has_seen_others_write_asks_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(barrier, "ALONE_S", 0.0)
    async with _placed() as place:
        await made(place, "a")
        monkeypatch.setattr(barrier, "ALONE_S", 1e6)
        await place.taken_away("a")
        await place.team.get(MAPS)
        assert await place.asked_by(made(place, "b")) == 1
        assert await place.asked_by(made(place, "c")) == 1


async def test_what_another_took_away_unseen_is_not_written_to(place: Place) -> None:
    one = await made(place, "a")
    await place.taken_away("a")
    assert (await refused(place.team.put(f"{MAPS}/a", one | {"data": {"x": "1"}}))).code == 404


async def test_a_write_that_changes_nothing_is_not_acknowledged_beside_what_another_took_away(
    place: Place,
) -> None:
    one = await made(place, "a")
    await place.taken_away("a")
    assert (await refused(place.team.put(f"{MAPS}/a", one))).code == 404


async def test_a_name_that_another_has_freed_unseen_can_be_taken(place: Place) -> None:
    await made(place, "a")
    await place.taken_away("a")
    assert (await made(place, "a"))["metadata"]["name"] == "a"
    await place.taken_away("a")
    assert (await refused(place.team.delete(f"{MAPS}/a"))).code == 404


async def test_a_write_whose_outcome_is_unknown_is_not_done_again(place: Place) -> None:
    await made(place, "a")
    place.backend.lost = 1
    await asyncio.sleep(0.01)
    assert (await refused(place.team.post(MAPS, config_map("b")))).code == 504
    assert len([entry for entry in (await place.store.list("")).entries if entry.key.endswith("/b")]) == 1
