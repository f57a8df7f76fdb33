"""Two servers over one PostgreSQL: a client cannot tell which of them answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from clusterling.controllers import expiry
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import ApiServer
from clusterling.storage import postgres, postgres_links
from tests.storage import postgres_server

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
MAPS = "/api/v1/namespaces/default/configmaps"
PATIENCE_S = 30.0
ROUNDS = 20  # What is only nearly at once is caught by one of so many.


def widget_crd(plural: str, kind: str) -> Object:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {"size": {"type": "integer", "default": 1}},
                                }
                            },
                        }
                    },
                }
            ],
        },
    }


def widget(name: str, kind: str = "Widget") -> Object:
    return {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": name}, "spec": {}}


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture
async def replicas(
    postgres_url: str,
) -> AsyncIterator[tuple[ApiServer, ApiServer]]:
    """Two servers that start at the same time; one of them does what controllers do."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(postgres.open(postgres_url)) for _ in range(2)]
        servers = [ApiServer(store) for store in stores]
        await asyncio.gather(*(stack.enter_async_context(server.running()) for server in servers))
        yield servers[0], servers[1]


async def test_a_new_cluster_answers_on_the_other_replica_at_once(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    for number in range(ROUNDS):
        made, asked = (replicas if number % 2 else replicas[::-1])[:2]
        await made.clusters.create(f"team-{number}")
        found = await asked.client(f"team-{number}").get("/api/v1/namespaces")
        assert "default" in [item["metadata"]["name"] for item in found["items"]]


async def test_a_replica_does_not_put_its_own_address_in_the_place_of_the_others(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    one, two = replicas
    url = await one.listen()
    made = await one.clusters.create("team")
    assert made.url.startswith(url)
    await two.listen()
    assert (await two.clusters.get("team")).url == made.url


async def test_a_deleted_cluster_is_refused_by_the_other_replica_at_once(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    one, two = replicas
    for number in range(ROUNDS):
        name = f"team-{number}"
        await one.clusters.create(name)
        await two.client(name).post(MAPS, config_map("a"))
        await one.clusters.delete(name)
        for path in ("/api/v1/namespaces", f"{MAPS}/a"):
            with pytest.raises(ApiError) as caught:
                await two.client(name).get(path)
            assert caught.value.code == 403
        with pytest.raises(ApiError) as caught:
            await two.client(name).post(MAPS, config_map("b"))
        assert caught.value.code == 403


async def test_a_kind_defined_through_one_replica_is_served_by_the_other_at_once(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    one, two = replicas
    await one.clusters.create("team")
    await two.client("team").get("/api/v1/namespaces")
    for number in range(ROUNDS):
        plural, kind = f"widget{number}s", f"Widget{number}"
        path = f"/apis/example.com/v1/namespaces/default/{plural}"
        await one.client("team").post(CRDS, widget_crd(plural, kind))
        made = await two.client("team").post(path, widget("a", kind))
        assert made["spec"] == {"size": 1}
        assert [item["metadata"]["name"] for item in (await one.client("team").get(path))["items"]] == ["a"]


async def test_a_changed_schema_is_that_of_the_other_replica_at_once(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    one, two = replicas
    await one.clusters.create("team")
    crd = await one.client("team").post(CRDS, widget_crd("widgets", "Widget"))
    await two.client("team").post(WIDGETS, widget("first"))
    for size in range(2, ROUNDS):
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        schema["properties"]["size"]["default"] = size
        crd = await one.client("team").put(f"{CRDS}/widgets.example.com", crd)
        made = await two.client("team").post(WIDGETS, widget(f"w{size}"))
        assert made["spec"] == {"size": size}
        crd = await one.client("team").get(f"{CRDS}/widgets.example.com")


async def test_what_was_written_through_one_replica_is_read_through_the_other(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    one, two = replicas
    await one.clusters.create("team")
    for number in range(ROUNDS):
        name = f"m{number}"
        made = await one.client("team").post(MAPS, config_map(name, x="1"))
        assert await two.client("team").get(f"{MAPS}/{name}") == made
        assert len((await two.client("team").get(MAPS))["items"]) == 1 + number + 1
        changed = await two.client("team").put(f"{MAPS}/{name}", made | {"data": {"x": "2"}})
        with pytest.raises(ApiError) as caught:
            await one.client("team").put(f"{MAPS}/{name}", made | {"data": {"x": "3"}})
        assert caught.value.code == 409
        assert await one.client("team").get(f"{MAPS}/{name}") == changed


async def test_a_watch_of_one_replica_tells_what_was_written_through_the_other(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    one, two = replicas
    await one.clusters.create("team")
    at = (await two.client("team").get(MAPS))["metadata"]["resourceVersion"]
    seen: list[tuple[str, str]] = []
    async with two.client("team").watching(MAPS, resourceVersion=at) as events, asyncio.timeout(PATIENCE_S):
        for number in range(ROUNDS):
            writer = (one, two)[number % 2].client("team")
            made = await writer.post(MAPS, config_map(f"m{number}"))
            await writer.put(f"{MAPS}/m{number}", made | {"data": {"x": "2"}})
            await writer.delete(f"{MAPS}/m{number}")
        async for event in events:
            seen.append((event["type"], event["object"]["metadata"]["name"]))
            if len(seen) == 3 * ROUNDS:
                break
    kinds = ("ADDED", "MODIFIED", "DELETED")
    assert seen == [(kind, f"m{number}") for number in range(ROUNDS) for kind in kinds]


async def test_a_credential_made_by_one_replica_is_good_at_the_other_until_its_cluster_goes(
    replicas: tuple[ApiServer, ApiServer],
) -> None:
    one, two = replicas
    url = await one.listen()
    two_url = await two.listen()
    assert url != two_url
    for number in range(3):
        name = f"team-{number}"
        await one.clusters.create(name)
        config = await one.clusters.kubeconfig(name)
        token = config["users"][0]["user"]["token"]
        assert await _status(two_url, name, token) == 200
        await one.clusters.delete(name)
        assert await _status(two_url, name, token) in (401, 403)


async def _status(url: str, cluster: str, token: str) -> int:
    import aiohttp

    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.get(f"{url}/clusters/{cluster}/api/v1/namespaces") as answer,
    ):
        return answer.status


async def test_a_replica_outlives_an_outage_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses and is not ready while the database is away, and goes on, watches and all, when it is back."""
    monkeypatch.setattr(postgres_links, "PATIENCE_S", 0.3)
    monkeypatch.setattr(postgres, "PATIENCE_S", 0.3)
    monkeypatch.setattr(expiry, "EVERY_S", 0.1)
    try:
        with postgres_server.running() as database:
            async with postgres.open(database.url) as store, ApiServer(store).running() as server:
                await server.clusters.create("team")
                team = server.client("team")
                at = (await team.get(MAPS))["metadata"]["resourceVersion"]
                async with team.watching(MAPS, resourceVersion=at) as events, asyncio.timeout(PATIENCE_S):
                    await asyncio.to_thread(database.stop)
                    for _ in range(3):
                        with pytest.raises(ApiError) as caught:
                            await team.get(MAPS)
                        assert caught.value.code == 503
                        assert (await team.request("GET", "/readyz")).status != 200
                        await asyncio.sleep(0.3)
                    await asyncio.to_thread(database.start)
                    while True:
                        try:
                            await team.post(MAPS, config_map("after"))
                            break
                        except ApiError as error:
                            assert error.code in (503, 504)
                            await asyncio.sleep(0.1)
                    event = await anext(events)
                    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "after")
                assert server.failed is None
    except postgres_server.NoPostgres as reason:
        pytest.skip(str(reason))
