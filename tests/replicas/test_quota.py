"""A cluster's quota while many write to it through several replicas, one of which is killed."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from clusterling.storage.opening import open_store
from clusterling.storage.store import Store
from tests.controllers.conftest import config_map
from tests.replicas.processes import PATIENCE_S, Replica, replicas
from tests.replicas.stores import SharedStore, store

__all__ = ["store"]

CLUSTERS = "/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
MAPS = "/clusters/team/api/v1/namespaces/default/configmaps"
WRITERS = 64
MOST = 150
ENOUGH = 500  # Refusals, after which there has been more than enough pressure.


def team() -> dict[str, Any]:
    return {
        "apiVersion": "tenancy.clusterling.io/v1alpha1",
        "kind": "LogicalCluster",
        "metadata": {"name": "team"},
        "spec": {"quota": {"hard": {"count/configmaps": MOST}}},
    }


class Tally:
    """What the writers were told, and what they may still delete."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.refused = 0
        self.names = itertools.count()


async def ask(
    session: aiohttp.ClientSession, member: Replica, method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    """Status and answer; 0 where the replica is gone."""
    headers = {"Authorization": f"Bearer {member.token}"}
    try:
        async with session.request(
            method, member.url + path, json=body, headers=headers, ssl=member.trust()
        ) as answer:
            return answer.status, await answer.json()
    except (aiohttp.ClientError, ConnectionError):
        return 0, None


async def write(session: aiohttp.ClientSession, member: Replica, tally: Tally) -> None:
    """Creates until refused often enough; now and then deletes something, so that there is room again."""
    while tally.refused < ENOUGH:
        name = f"m{next(tally.names)}"
        status, body = await ask(session, member, "POST", MAPS, config_map(name))
        if status == 201:
            tally.made.append(name)
        elif status == 403:
            assert "exceeded quota: team, requested: count/configmaps=1" in body["message"]
            tally.refused += 1
            if tally.made and tally.refused % 3 == 0:
                status, _ = await ask(session, member, "DELETE", f"{MAPS}/{tally.made.pop()}")
                assert status in (0, 200, 404, 503, 504), status
        elif status == 0:
            return
        else:
            assert status in (429, 503, 504), (status, body)


@asynccontextmanager
async def counted(opened: Store, cluster: str) -> AsyncIterator[list[int]]:
    """How many there were after each event, as it is in the log that all replicas share."""
    prefix = f"{cluster}/core/configmaps/"
    page = await opened.list(prefix)
    there = {entry.key for entry in page.entries}
    counts = [len(there)]

    async def follow() -> None:
        async with opened.watch(prefix, after=page.revision) as watch:
            async for batch in watch:
                for event in batch.events:
                    if event.entry is None:
                        there.discard(event.key)
                    elif len(event.entry.value) > 1:
                        there.add(event.key)
                    counts.append(len(there))

    following = asyncio.get_running_loop().create_task(follow())
    try:
        yield counts
    finally:
        following.cancel()


async def test_of_64_writers_on_three_replicas_none_makes_one_object_too_many(
    store: SharedStore, tmp_path: Path
) -> None:
    async with (
        replicas(tmp_path, store.url(), 3) as members,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        open_store(store.url()) as opened,
        asyncio.timeout(4 * PATIENCE_S),
    ):
        status, made = await ask(session, members[0], "POST", CLUSTERS, team())
        assert status == 201, made
        tally = Tally()
        async with counted(opened, made["status"]["id"]) as counts:
            async with asyncio.TaskGroup() as group:
                for number in range(WRITERS):
                    group.create_task(write(session, members[number % 3], tally))
                while tally.refused < ENOUGH // 3:
                    await asyncio.sleep(0.05)
                await members[2].end(signal.SIGKILL)
            await opened.fresh()
            assert max(counts) == MOST
        found = await opened.usage(f"{made['status']['id']}/core/configmaps/")
        assert sum(one.objects for one in found) == await opened.count(
            f"{made['status']['id']}/core/configmaps/"
        )
        _, used = await ask(session, members[0], "GET", f"{CLUSTERS}/team/usage")
        assert used["used"]["count/configmaps"] == found[0].objects
