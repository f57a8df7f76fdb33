"""The client without a socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.services.client import Client
from tests.services.serving import CONFIGMAPS, TEAM_A, Serving, configmap


async def test_it_does_what_the_api_does(world: Serving) -> None:
    client = world.client()
    made = await client.post(CONFIGMAPS, configmap("a", x="1"))
    assert await client.get(f"{CONFIGMAPS}/a") == made
    assert (await client.put(f"{CONFIGMAPS}/a", made | {"data": {"x": "2"}}))["data"] == {"x": "2"}
    assert (await client.patch(f"{CONFIGMAPS}/a", {"data": {"y": "3"}}))["data"] == {"x": "2", "y": "3"}
    assert (await client.delete(f"{CONFIGMAPS}/a"))["status"] == "Success"


async def test_an_error_is_the_one_that_a_client_over_the_network_gets(world: Serving) -> None:
    with pytest.raises(ApiError) as caught:
        await world.client().get(f"{CONFIGMAPS}/a")
    error = caught.value
    over_the_network = orjson.loads((await world.ask("GET", f"/clusters/team-a{CONFIGMAPS}/a")).body)
    assert error.status() == over_the_network


async def test_an_answer_that_is_no_status_is_an_error_with_its_text(world: Serving) -> None:
    with pytest.raises(ApiError) as caught:
        await world.client().get("/nothing")
    assert (caught.value.code, caught.value.reason, caught.value.message) == (
        404,
        "NotFound",
        "404 page not found",
    )


async def test_it_may_do_what_its_user_may_and_needs_no_credential(world: Serving) -> None:
    ann = Client(world.app, "team-a", TEAM_A)
    assert (await ann.get(CONFIGMAPS))["items"] == []
    with pytest.raises(ApiError) as caught:
        await Client(world.app, "team-b", TEAM_A).get(CONFIGMAPS)
    assert caught.value.code == 403


async def test_parameters_are_escaped_and_may_repeat(world: Serving) -> None:
    client = world.client()
    await client.post(CONFIGMAPS, configmap("a"), dryRun=["All", "All"])
    found = await client.get(CONFIGMAPS, labelSelector="a in (b,c),!d", limit=1)
    assert found["items"] == []
    with pytest.raises(ApiError) as caught:
        await client.get(CONFIGMAPS, labelSelector="a=b&limit=x")
    assert "unable to parse requirement" in caught.value.message


async def test_a_watch_that_cannot_begin_raises_at_once(world: Serving) -> None:
    with pytest.raises(ApiError) as caught:
        async with world.client().watching(CONFIGMAPS, fieldSelector="x"):
            raise AssertionError("it must not begin")
    assert caught.value.code == 400


async def test_a_watch_is_no_document(world: Serving) -> None:
    with pytest.raises(ValueError, match="watch"):
        await world.client().get(CONFIGMAPS, watch=True)
    assert world.limits.in_flight == 0


async def test_a_watch_is_in_place_once_its_context_is_entered(world: Serving) -> None:
    client = world.client()
    async with client.watching(CONFIGMAPS) as events:
        await client.post(CONFIGMAPS, configmap("a"))
        async with asyncio.timeout(5):
            assert (await anext(events))["object"]["metadata"]["name"] == "a"


async def test_a_reader_that_takes_its_time_misses_nothing(world: Serving) -> None:
    client = world.client()
    async with client.watching(CONFIGMAPS) as events:
        for number in range(30):
            await client.post(CONFIGMAPS, configmap(f"c{number:02}", x="y" * 100_000))
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            names = [(await anext(events))["object"]["metadata"]["name"] for _ in range(30)]
    assert names == [f"c{number:02}" for number in range(30)]


def test_an_embedder_in_process_does_not_import_a_server() -> None:
    code = "import sys, clusterling.services.client; print([m for m in sys.modules if m.split('.')[0] == 'httptools'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
