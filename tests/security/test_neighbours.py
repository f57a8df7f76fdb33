"""One tenant does all it may at once: it meets its limits, which are named, and another, who asks for little, meets none.

How long the other waits is measured by `make bench-neighbours`; here it is what they are told, and in what order they are served.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from clusterling.registry.strategy import User
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.services.request import Response, Sink, StreamingResponse
from clusterling.storage import memory
from tests.peers import Taker
from tests.security.world import CONFIGMAPS, CRDS, JSON, crd

LISTS, WATCHES, WRITES = 10, 40, 20
LIMITS = {"tenant.lists": LISTS, "tenant.watches": WATCHES, "tenant.writes": WRITES}
BIG = 3_000_000


@dataclass(frozen=True, slots=True)
class Neighbours:
    loud: Client
    quiet: Client
    server: ApiServer


@asynccontextmanager
async def neighbours() -> AsyncIterator[Neighbours]:
    """Two tenants, each as an administrator of its own cluster, which is whom limits are counted for."""
    async with (
        memory.open() as store,
        ApiServer(store, external_url="http://127.0.0.1", limits=LIMITS).running() as server,
    ):
        clients = []
        for name in ("loud", "quiet"):
            await server.clusters.create(name)
            cluster = await server.pool.find(name)
            assert cluster is not None
            clients.append(server.client(name, User("admin", ("system:masters",), realm=cluster.id)))
        yield Neighbours(clients[0], clients[1], server)


@pytest.fixture
async def street() -> AsyncIterator[Neighbours]:
    async with neighbours() as found:
        yield found


def configmap(name: str, data: dict[str, str]) -> bytes:
    return json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    ).encode()


async def post(client: Client, path: str, body: bytes) -> Response:
    return await client.request("POST", path, None, body, JSON)


class Told:
    """What a tenant was answered: how often which code, and what refusals said."""

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.said: set[str] = set()
        self.retry: set[str] = set()

    def hear(self, response: Response) -> None:
        self.codes[response.status] += 1
        if response.status >= 400:
            self.said.add(json.loads(response.body)["message"])
            self.retry.update(value for name, value in response.headers if name == "Retry-After")


async def ask_little(client: Client, told: Told, until: asyncio.Event) -> None:
    """Reads and creates, one after the other, while the noise lasts."""
    made = 0
    while not until.is_set() or made < 20:
        told.hear(await post(client, CONFIGMAPS, configmap(f"q{made}", {"a": "b"})))
        told.hear(await client.request("GET", f"{CONFIGMAPS}/q{made}"))
        made += 1
        await asyncio.sleep(0)


async def test_who_asks_for_little_is_never_refused_while_another_meets_its_limits(
    street: Neighbours,
) -> None:
    loud, quiet = street.loud, street.quiet
    for number in range(600):
        assert (await post(loud, CONFIGMAPS, configmap(f"c{number}", {"a": "x" * 2_000}))).status == 201
    over, little = asyncio.Event(), Told()
    told = {sort: Told() for sort in ("lists", "watches", "writes", "bodies", "definitions")}
    opened: list[Response] = []
    properties = {f"p{at}": {"type": "string", "maxLength": 63} for at in range(20_000)}
    definition = json.dumps(crd("bigs", {"type": "object", "properties": properties})).encode()

    async def one(sort: str, asked: Any) -> None:
        response = await asked
        if isinstance(response, StreamingResponse):
            opened.append(response)
        told[sort].hear(response)

    async def noise() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(one("lists", loud.request("GET", CONFIGMAPS)))
                group.create_task(one("watches", loud.request("GET", f"{CONFIGMAPS}?watch=1")))
                body = configmap(f"n{number}", {"a": "b"})
                group.create_task(one("writes", post(loud, CONFIGMAPS, body)))
            for _ in range(3):
                group.create_task(one("bodies", post(loud, CONFIGMAPS, configmap("big", {"a": "x" * BIG}))))
            group.create_task(one("definitions", post(loud, CRDS, definition)))
        over.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(noise())
        group.create_task(ask_little(quiet, little, over))
    for response in opened:
        assert isinstance(response, StreamingResponse)
        await response.close()
    assert set(little.codes) == {200, 201}
    assert told["lists"].codes[200] >= LISTS and told["lists"].codes[429] > 0
    assert told["watches"].codes == {200: WATCHES, 429: 50 - WATCHES}
    assert told["writes"].codes[429] > 0
    for sort, most in (("lists", LISTS), ("watches", WATCHES), ("writes", WRITES)):
        assert all(str(most) in text for text in told[sort].said), told[sort].said
        assert told[sort].retry


async def test_a_change_reaches_who_watches_alone_before_all_of_anothers_thousands(
    street: Neighbours,
) -> None:
    """The loud one's watches are each sent all of a collection; the quiet one's event does not wait for that."""
    loud, quiet = street.loud, street.quiet
    for number in range(300):
        await post(loud, CONFIGMAPS, configmap(f"c{number}", {"a": "x" * 500}))
    one = await quiet.request("GET", f"{CONFIGMAPS}?watch=1&resourceVersion=0&timeoutSeconds=60")
    many = [
        await loud.request("GET", f"{CONFIGMAPS}?watch=1&resourceVersion=0&timeoutSeconds=60")
        for _ in range(WATCHES)
    ]
    mine, theirs = Taker(), [Taker() for _ in many]
    left: list[int] = []

    async def event() -> None:
        await post(quiet, CONFIGMAPS, configmap("mine", {"a": "b"}))
        while not any(b'"mine"' in data for data in mine.writes):
            await asyncio.sleep(0)
        left.append(sum(b'"c299"' not in b"".join(peer.writes) for peer in theirs))

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(_run(one, mine))]
        running += [group.create_task(_run(other, peer)) for other, peer in zip(many, theirs, strict=True)]
        await group.create_task(event())
        while any(b'"c299"' not in b"".join(peer.writes) for peer in theirs):
            await asyncio.sleep(0)
        for response in (one, *many):
            assert isinstance(response, StreamingResponse)
            response.stream.stop()
    assert left[0] > WATCHES // 4


async def _run(response: Response, sink: Sink) -> None:
    assert isinstance(response, StreamingResponse)
    await response.stream.run(sink)
    await response.close()
