"""The subresource `tokens` of a LogicalCluster, through whole servers, and what becomes of what a token holds open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from clusterling.controllers import expiry
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.services.request import Headers, Request, Response, StreamingResponse
from clusterling.storage import memory
from clusterling.storage.store import Store
from tests.peers import Taker
from tests.tenancy.clocks import Turned

TOKENS = f"{LOGICAL_CLUSTERS}/team/tokens"
MAPS = "/api/v1/namespaces/default/configmaps"
PATIENCE_S = 30.0


class Served:
    """A server with the cluster `team`, and requests that show a token."""

    def __init__(self, server: ApiServer, store: Store | None, clock: Turned) -> None:
        self.server = server
        self.store = store
        self.clock = clock
        self.root = server.client("root")

    async def create(self, name: str = "", seconds: int | None = None, **more: object) -> Object:
        spec = {} if seconds is None else {"expirationSeconds": seconds}
        return await self.root.post(TOKENS, _token(name, {**spec, **more}))

    async def names(self) -> list[str]:
        return [one["metadata"]["name"] for one in (await self.root.get(TOKENS))["items"]]

    async def ask(self, token: str, path: str = MAPS, query: str = "", cluster: str = "team") -> Response:
        async def nothing(_: int) -> list[bytes]:
            return []

        headers = Headers({"Authorization": f"Bearer {token}"})
        return await self.server.app(Request("GET", f"/clusters/{cluster}{path}", query, headers, nothing))

    @asynccontextmanager
    async def watching(self, token: str) -> AsyncIterator[asyncio.Task[None]]:
        """A watch that the token opened; the task ends when it does."""
        response = await self.ask(token, query="watch=1")
        assert isinstance(response, StreamingResponse)
        task = asyncio.create_task(response.stream.run(Taker()))
        await asyncio.sleep(0)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])
            await response.close()


def _token(name: str, spec: Object) -> Object:
    metadata = {"name": name} if name else {}
    return {
        "apiVersion": "tenancy.clusterling.io/v1alpha1",
        "kind": "ClusterToken",
        "metadata": metadata,
        "spec": spec,
    }


@asynccontextmanager
async def serving(store: Store) -> AsyncIterator[Served]:
    clock = Turned()
    server = ApiServer(store, clock=clock, external_url="https://127.0.0.1:1")
    async with server.running():
        yield Served(server, store, clock)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with memory.open() as store, serving(store) as one:
        await one.server.clusters.create("team")
        await one.server.clusters.create("other")
        yield one


async def refused(work: Awaitable[object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value


async def test_a_token_is_an_administrators_of_its_cluster_and_shown_once(served: Served) -> None:
    made = await served.create("ci")
    secret = made["status"]["token"]
    assert made["metadata"]["name"] == "ci"
    assert made["status"]["user"] == "clusterling:admin:team"
    assert (await served.ask(secret)).status == 200
    assert (await served.ask(secret, cluster="other")).status == 401
    listed = await served.root.get(TOKENS)
    assert listed["kind"] == "ClusterTokenList"
    del made["status"]["token"]
    assert listed["items"] == [made]


async def test_tokens_of_kubeconfigs_and_service_accounts_are_listed_by_a_name_and_revoked_by_it(
    served: Served,
) -> None:
    config = await served.server.clusters.kubeconfig("team")
    secret = config["users"][0]["user"]["token"]
    (name,) = await served.names()
    assert name.startswith("t-")
    assert (await served.ask(secret)).status == 200
    await served.root.delete(TOKENS, name=name)
    assert (await served.ask(secret)).status == 401
    assert await served.names() == []


async def test_a_name_is_taken_once_however_many_want_it(served: Served) -> None:
    made = await asyncio.gather(*(served.create("ci") for _ in range(8)), return_exceptions=True)
    errors = [one for one in made if isinstance(one, ApiError)]
    assert [(error.code, error.reason) for error in errors] == [(409, "AlreadyExists")] * 7
    assert await served.names() == ["ci"]
    await served.root.delete(TOKENS, name="ci")
    await served.create("ci")


async def test_rotating_ends_the_old_secret_and_its_watches_at_once_and_keeps_name_and_lifetime(
    served: Served,
) -> None:
    old = await served.create("ci", 3600)
    served.clock.turn(timedelta(seconds=600))
    async with served.watching(old["status"]["token"]) as watch:
        new = await served.root.put(TOKENS, _token("ci", {}))
        assert (await served.ask(old["status"]["token"])).status == 401
        assert (await served.ask(new["status"]["token"])).status == 200
        async with asyncio.timeout(PATIENCE_S):
            await watch
    assert await served.names() == ["ci"]
    assert new["status"]["expirationTimestamp"] > old["status"]["expirationTimestamp"]
    again = await served.root.put(TOKENS, _token("ci", {"expirationSeconds": 60}))
    assert again["status"]["expirationTimestamp"] < new["status"]["expirationTimestamp"]
    assert (await served.ask(new["status"]["token"])).status == 401


async def test_of_those_who_rotate_at_once_the_last_ones_secret_is_the_one_that_is_good(
    served: Served,
) -> None:
    await served.create("ci")
    made = await asyncio.gather(*(served.root.put(TOKENS, _token("ci", {})) for _ in range(6)))
    answers = [(await served.ask(one["status"]["token"])).status for one in made]
    assert sorted(answers) == [200, 401, 401, 401, 401, 401]
    assert await served.names() == ["ci"]


async def test_a_token_expires_when_it_said(served: Served) -> None:
    made = await served.create("brief", 60)
    assert (await served.ask(made["status"]["token"])).status == 200
    served.clock.turn(timedelta(seconds=61))
    assert (await served.ask(made["status"]["token"])).status == 401


async def test_a_revoked_tokens_watches_end_and_those_of_others_go_on(served: Served) -> None:
    gone, kept = await served.create("gone"), await served.create("kept")
    async with (
        served.watching(gone["status"]["token"]) as ends,
        served.watching(kept["status"]["token"]) as stays,
    ):
        await served.root.delete(TOKENS, name="gone")
        async with asyncio.timeout(PATIENCE_S):
            await ends
        assert not stays.done()
        assert len(served.server.app.streams) >= 1


async def test_another_server_on_the_store_ends_the_watches_of_a_token_that_this_one_revoked() -> None:
    async with memory.open() as store, serving(store) as one, serving(store) as other:
        await one.server.clusters.create("team")
        made = await one.create("ci")
        async with other.watching(made["status"]["token"]) as watch:
            await one.root.delete(TOKENS, name="ci")
            async with asyncio.timeout(PATIENCE_S):
                await watch
        assert (await other.ask(made["status"]["token"])).status == 401


async def test_a_dry_run_makes_and_revokes_nothing(served: Served) -> None:
    await served.create("ci")
    error = await refused(served.root.post(TOKENS, _token("x", {}), dryRun="All"))
    assert error.code == 400
    await served.root.delete(TOKENS, name="ci", dryRun="All")
    assert await served.names() == ["ci"]


async def test_a_long_list_comes_in_parts(served: Served) -> None:
    for number in range(5):
        await served.create(f"t{number}")
    names: list[str] = []
    more = ""
    while True:
        part = await served.root.get(TOKENS, limit="2", **({"continue": more} if more else {}))
        assert len(part["items"]) <= 2
        names += [one["metadata"]["name"] for one in part["items"]]
        more = part["metadata"].get("continue", "")
        if not more:
            break
    assert sorted(names) == [f"t{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("Ä", {}),
        ("a/b", {}),
        ("x" * 64, {}),
        ("t-0123456789abcdef", {}),
        ("ok", {"expirationSeconds": 9}),
        ("ok", {"expirationSeconds": True}),
        ("ok", {"expirationSeconds": 60.5}),
        ("ok", {"expirationSeconds": 10**12}),
        ("ok", {"user": "somebody"}),
    ],
)
async def test_what_no_token_can_be_is_refused(served: Served, name: str, spec: Object) -> None:
    error = await refused(served.root.post(TOKENS, _token(name, spec)))
    assert error.code in (400, 422)
    assert await served.names() == []


async def test_who_names_no_token_or_cluster_that_is_there_is_told_so(served: Served) -> None:
    for work in (
        served.root.delete(TOKENS, name="nobodys"),
        served.root.delete(TOKENS, name="t-0123456789abcdef"),
        served.root.delete(TOKENS, name="../x"),
        served.root.put(TOKENS, _token("nobodys", {})),
        served.root.get(f"{LOGICAL_CLUSTERS}/nowhere/tokens"),
    ):
        assert (await refused(work)).code == 404
    assert (await refused(served.root.delete(TOKENS))).code == 400
    for wrong in ("/", "é", "a b"):
        assert (await refused(served.root.get(TOKENS, **{"continue": wrong}))).code == 400
    body = {**_token("a", {}), "spec": 5}
    assert (await refused(served.root.post(TOKENS, body))).code == 400


async def test_a_tenant_has_no_say_over_tokens_of_the_platform(served: Served) -> None:
    made = await served.create("ci")
    answer = await served.ask(made["status"]["token"], path=TOKENS, cluster="root")
    assert answer.status == 401


async def test_the_end_of_a_token_is_nothing_to_the_controllers(served: Served) -> None:
    await served.create("brief", 60)
    served.clock.turn(timedelta(seconds=61))
    assert served.store is not None
    assert await expiry.sweep(served.store, served.clock) == 2
    await served.server.client("team").post(
        MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    )
    assert await served.names() == []
    assert served.server.failed is None
