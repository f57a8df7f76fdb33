"""Tokens of several servers over one PostgreSQL: what one of them ends has ended for all."""

from __future__ import annotations

import asyncio

from clusterling.machinery.meta import Object
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from tests.replicas.test_two_replicas import ROUNDS, replicas
from tests.tenancy.clocks import Turned
from tests.tenancy.test_clustertokens import PATIENCE_S, Served

__all__ = ["replicas"]  # A fixture.

TOKENS = f"{LOGICAL_CLUSTERS}/team/tokens"


async def _make(server: ApiServer, name: str) -> str:
    body: Object = {
        "apiVersion": "tenancy.clusterling.io/v1alpha1",
        "kind": "ClusterToken",
        "metadata": {"name": name},
    }
    token: str = (await server.client("root").post(TOKENS, body))["status"]["token"]
    return token


async def test_a_token_that_one_replica_revokes_is_refused_by_the_other_at_once_and_its_watches_end(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    await replicas[0].clusters.create("team")
    for number in range(ROUNDS):
        one, two = replicas if number % 2 else replicas[::-1]
        token = await _make(one, f"t{number}")
        other = Served(two, None, Turned())
        assert (await other.ask(token)).status == 200
        async with other.watching(token) as watch:
            await one.client("root").delete(TOKENS, name=f"t{number}")
            assert (await other.ask(token)).status == 401
            async with asyncio.timeout(PATIENCE_S):
                await watch
