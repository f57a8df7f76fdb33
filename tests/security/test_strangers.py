"""What somebody without a credential, or with another cluster's, can learn or cause."""

from __future__ import annotations

import pytest

from clusterling.server import ApiServer
from clusterling.services.request import Headers, Request, Response
from clusterling.storage import memory
from clusterling.storage.metered import MeteredStore


async def nothing(_limit: int) -> list[bytes]:
    return []


async def ask(server: ApiServer, path: str, token: str | None) -> Response:
    fields = {} if token is None else {"Authorization": f"Bearer {token}"}
    return await server.app(Request("GET", path, "", Headers(fields), nothing))


@pytest.mark.parametrize("path", ["/api/v1/namespaces", "/apis", "/openapi/v2", "/api/v1/secrets"])
async def test_a_wrong_token_costs_and_says_the_same_on_every_name(path: str) -> None:
    """Nothing is built for it, and the reads of the store are as many for a cluster that is there as for none."""
    async with memory.open() as store:
        metered = MeteredStore(store)
        async with ApiServer(metered, external_url="https://example.org").running() as server:
            await server.clusters.create("alice")
            await server.clusters.create("mallory")
            config = await server.clusters.kubeconfig("mallory")
            await server.pool.aclose()
            calls = metered.figures.calls
            for token in ("nobodys", config["users"][0]["user"]["token"]):
                seen = set()
                for name in ("alice", "nobody"):
                    before = dict(calls)
                    answer = await ask(server, f"/clusters/{name}{path}", token)
                    reads = {key: calls[key] - before.get(key, 0) for key in calls}
                    seen.add((answer.status, answer.body, tuple(sorted(reads.items()))))
                assert len(seen) == 1
                assert answer.status == 401
            assert len(server.pool) == 0


async def test_without_a_credential_nothing_is_read() -> None:
    async with memory.open() as store:
        metered = MeteredStore(store)
        async with ApiServer(metered).running() as server:
            await server.clusters.create("alice")
            await server.pool.aclose()
            before = dict(metered.figures.calls)
            answers = [await ask(server, f"/clusters/{name}/api", None) for name in ("alice", "nobody")]
            assert [answer.status for answer in answers] == [401, 401]
            assert answers[0].body == answers[1].body
            assert metered.figures.calls == before
            assert len(server.pool) == 0
