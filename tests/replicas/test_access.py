"""Suspended and read-only clusters at several servers over one PostgreSQL: what one is told holds at all."""

from __future__ import annotations

import asyncio

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.server import ApiServer
from tests.replicas.test_two_replicas import MAPS, PATIENCE_S, config_map, replicas
from tests.tenancy.test_access import turn

__all__ = ["replicas"]  # A fixture.

ROUNDS = 10


async def test_a_cluster_that_one_replica_suspends_is_refused_by_the_other_at_once_and_its_watches_end(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    await replicas[0].clusters.create("team")
    for number in range(ROUNDS):
        one, two = replicas if number % 2 else replicas[::-1]
        team = two.client("team")
        async with team.watching(MAPS) as events:
            await turn(one, suspended=True)
            with pytest.raises(ApiError) as caught:
                await team.get(MAPS)
            assert caught.value.code == 503
            async with asyncio.timeout(PATIENCE_S):
                assert [event async for event in events if event["type"] != "ADDED"] == []
        await turn(one, suspended=None)
        await team.post(MAPS, config_map(f"m{number}"))


async def test_of_those_who_write_while_a_cluster_becomes_read_only_none_succeeds_after_the_answer(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    one, two = replicas
    await one.clusters.create("team")
    team = two.client("team")
    names = iter(range(1_000_000))

    async def write() -> None:
        while True:
            await team.post(MAPS, config_map(f"m{next(names)}"))

    for _ in range(ROUNDS):
        writers = [asyncio.create_task(write()) for _ in range(8)]
        await asyncio.sleep(0.01)
        await turn(one, access="ReadOnly")
        revision = (await team.get(MAPS))["metadata"]["resourceVersion"]
        ended = await asyncio.gather(*writers, return_exceptions=True)
        assert {error.code for error in ended if isinstance(error, ApiError)} <= {403, 503}
        assert len(ended) == 8
        assert (await team.get(MAPS))["metadata"]["resourceVersion"] == revision
        await turn(one, access=None)
        await team.post(MAPS, config_map(f"m{next(names)}"))
