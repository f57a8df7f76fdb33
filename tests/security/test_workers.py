"""Writes that would hold the loop are computed in processes of their own: alike, in turn, and at nobody else's expense."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterling import packs
from clusterling.machinery.meta import Object
from clusterling.registry.admission import Admission
from clusterling.registry.pack import Pack
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.services.client import Client
from clusterling.services.request import BODY_BYTES_MAX, Headers, Request, Response
from clusterling.services.workers.pool import BYTES_MAX, WorkerLimits, is_much
from clusterling.storage import memory
from clusterling.tenancy.authorization import ADMIN
from tests.security.world import CONFIGMAPS, CRDS, JSON, Turns, crd

PODS: Final = "/api/v1/namespaces/default/pods"
DEEPS: Final = "/apis/x.io/v1/namespaces/default/deeps"
MERGE: Final = {"Content-Type": "application/merge-patch+json"}
STRATEGIC: Final = {"Content-Type": "application/strategic-merge-patch+json"}
JSON_PATCH: Final = {"Content-Type": "application/json-patch+json"}
APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}
YAML: Final = {"Content-Type": "application/yaml"}


def pod(name: str, containers: int, **more: Any) -> Object:
    spec = {"containers": [{"name": f"c{at}", "image": "i"} for at in range(containers)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **more}, "spec": spec}


def config(name: str, keys: int) -> Object:
    return {"metadata": {"name": name}, "data": {f"k{at}": "v" for at in range(keys)}}


LARGE: Final = 20_000  # Keys of a ConfigMap that takes a tenth of a second.


@asynccontextmanager
async def serving(limits: WorkerLimits, **more: Any) -> AsyncIterator[ApiServer]:
    async with (
        memory.open() as store,
        ApiServer(
            store, run_controllers=False, external_url="http://127.0.0.1", workers=limits, **more
        ).running() as server,
    ):
        await server.clusters.create("mallory")
        await server.clusters.create("alice")
        yield server


async def ask(
    client: Client, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Response:
    sent = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    return await client.request(method, path, None, sent, {**JSON, **(headers or {})})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def everything(_data: bytes, _content_type: str) -> bool:
    return True


# ---------------------------------------------------------------------- the same answers


_UID: Final = re.compile(
    rb'"?[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"?'
)  # Some are quoted in YAML.
_VOLUME: Final = re.compile(rb"kube-api-access-[a-z0-9]{5}")
_TIME: Final = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_AGE: Final = re.compile(rb'(?<=,)"\d+s"(?=,)')  # In a row of a table: a second may pass between the two.


def comparable(response: Response) -> tuple[Any, ...]:
    """What an answer says, but for what is never the same: uids, random names, and the moment."""
    body = _UID.sub(b"uid", _VOLUME.sub(b"kube-api-access", response.body))
    body = _AGE.sub(b'"age"', _TIME.sub(b"then", body))
    return response.status, body, response.content_type, response.headers


class Pair:
    """Two servers that are asked the same: one gives every write away, the other none."""

    def __init__(self, away: ApiServer, here: ApiServer) -> None:
        self.away = away
        self.here = here
        away.workers.is_much = everything

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Response:
        """The answer, which is one and the same."""
        clients = (self.away.client("mallory"), self.here.client("mallory"))
        given_away, computed_here = [await ask(one, method, path, body, headers) for one in clients]
        assert comparable(given_away) == comparable(computed_here)
        return computed_here


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with (
        serving(WorkerLimits(processes=1), packs=packs.ALL) as away,
        serving(WorkerLimits(processes=0), packs=packs.ALL) as here,
    ):
        both = Pair(away, here)
        yield both
        assert away.workers.done > 0
        assert here.workers.started == 0


DEEP: Final[Object] = {
    "type": "object",
    "properties": {
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 8},
                    "size": {"type": "integer", "default": 3},
                },
            },
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        }
    },
}


async def test_a_write_that_is_given_away_is_answered_as_it_would_be_here() -> None:
    async with pair() as both:
        made = await both.ask("POST", PODS, pod("p", 60, labels={"a": "b"}))
        assert made.status == 201
        assert (await both.ask("POST", PODS, pod("p", 60))).status == 409
        assert (await both.ask("POST", PODS, pod("q", 2, labels={"a": "-"}))).status == 422
        assert (await both.ask("POST", PODS, b"{")).status == 400
        assert (await both.ask("POST", PODS, b"kind: [", YAML)).status == 400
        assert (await both.ask("POST", f"{PODS}?dryRun=All", pod("dry", 3))).status == 201
        strict = {**pod("s", 1), "unknown": 1}
        assert (await both.ask("POST", f"{PODS}?fieldValidation=Strict", strict)).status == 400
        assert (await both.ask("POST", PODS, strict)).status == 201
        told = await both.ask("POST", PODS, pod("t", 3), {"Accept": "application/yaml"})
        assert (told.status, told.content_type) == (201, "application/yaml")
        told = await both.ask(
            "POST", PODS, pod("u", 3), {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        )
        assert orjson.loads(told.body)["kind"] == "Table"
        assert (await both.ask("POST", PODS, pod("v", 3), {"Accept": "text/html"})).status == 406
        for headers, body in (
            (MERGE, {"metadata": {"labels": {"a": "c"}}}),
            (STRATEGIC, {"spec": {"containers": [{"name": "c7", "image": "j"}]}}),
            (STRATEGIC, {"spec": {"containers": 3}}),
            (JSON_PATCH, [{"op": "add", "path": "/metadata/labels/x", "value": "y"}]),
            (JSON_PATCH, [{"op": "test", "path": "/metadata/labels/x", "value": "z"}]),
            (MERGE, {"spec": {"containers": []}}),
        ):
            await both.ask("PATCH", f"{PODS}/p", body, headers)
        await both.ask("PATCH", f"{PODS}/p/status", {"status": {"phase": "Running"}}, MERGE)
        await both.ask("PATCH", f"{PODS}/absent", {"metadata": {}}, MERGE)
        stale = {**pod("p", 60), "metadata": {"name": "p", "resourceVersion": "1"}}
        assert (await both.ask("PUT", f"{PODS}/p", stale)).status == 409
        applied = pod("applied", 20)
        for manager in ("one", "one", "two"):
            await both.ask("PATCH", f"{PODS}/applied?fieldManager={manager}", applied, APPLY)
        other = pod("applied", 20)
        other["spec"]["containers"][3]["image"] = "other"
        path = f"{PODS}/applied?fieldManager=two"
        assert (await both.ask("PATCH", path, other, APPLY)).status == 409
        assert (await both.ask("PATCH", f"{path}&force=true", other, APPLY)).status == 200


async def test_kinds_of_ones_own_and_their_definitions_are_given_away_alike() -> None:
    async with pair() as both:
        assert (await both.ask("POST", CRDS, crd("deeps", {"type": "nothing"}))).status == 422
        assert (await both.ask("POST", CRDS, crd("deeps", DEEP))).status == 201
        body: Object = {"apiVersion": "x.io/v1", "kind": "Deeps", "metadata": {"name": "w"}}
        body["spec"] = {"rows": [{"name": f"r{at}"} for at in range(50)]}
        assert (await both.ask("POST", DEEPS, body)).status == 201
        twice = {**body, "metadata": {"name": "t"}, "spec": {"rows": [{"name": "r"}, {"name": "r"}]}}
        assert (await both.ask("POST", DEEPS, twice)).status == 422
        await both.ask("PATCH", f"{DEEPS}/w", {"spec": {"rows": [{"name": "much too long"}]}}, MERGE)
        await both.ask("PATCH", f"{DEEPS}/x?fieldManager=m", {**body, "metadata": {"name": "x"}}, APPLY)
        changed = orjson.loads(orjson.dumps(DEEP))
        changed["properties"]["rows"]["items"]["properties"]["size"]["default"] = 4
        schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": changed}}}
        change = [{"op": "replace", "path": "/spec/versions/0/schema", "value": schema}]
        assert (await both.ask("PATCH", f"{CRDS}/deeps.x.io", change, JSON_PATCH)).status == 200
        newer = await both.ask("POST", DEEPS, {**body, "metadata": {"name": "newer"}})
        assert orjson.loads(newer.body)["spec"]["rows"][0]["size"] == 4
        assert (await both.ask("DELETE", f"{CRDS}/deeps.x.io")).status == 200
        await both.ask("POST", DEEPS, {**body, "metadata": {"name": "late"}})


_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=6)
_json = st.recursive(
    _scalars,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3),
    max_leaves=8,
)
_bodies = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.sampled_from(["v1", "x/v1", ""]),
        "kind": st.sampled_from(["ConfigMap", "Pod"]),
        "metadata": st.fixed_dictionaries({"name": st.sampled_from(["a", "b", "-"])}) | _json,
        "data": st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3) | _json,
        "immutable": _scalars,
        "other": _json,
    },
)


async def test_whatever_is_sent_is_answered_alike() -> None:
    async with pair() as both:
        loop = asyncio.get_running_loop()

        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.sampled_from(["POST", "PUT", "PATCH"]),
            _bodies | _json,
            st.sampled_from([MERGE, STRATEGIC, APPLY, JSON_PATCH]),
            st.sampled_from(["", "?fieldValidation=Strict", "?fieldManager=m&force=true", "?dryRun=All"]),
        )
        def alike(method: str, body: Any, headers: dict[str, str], query: str) -> None:
            where = CONFIGMAPS if method == "POST" else f"{CONFIGMAPS}/a"
            sent = both.ask(method, where + query, orjson.dumps(body), headers if method == "PATCH" else {})
            asyncio.run_coroutine_threadsafe(sent, loop).result(60)

        await asyncio.to_thread(alike)


async def test_quotas_hold_and_warn_for_what_is_given_away() -> None:
    async with pair() as both:
        spec = {"quota": {"hard": {"count/configmaps": "3"}, "soft": {"count/configmaps": "1"}}}
        path = f"{LOGICAL_CLUSTERS}/mallory"
        for server in (both.away, both.here):
            answer = await ask(server.client("root"), "PATCH", path, {"spec": spec}, MERGE)
            assert answer.status == 200, answer.body
        statuses = [(await both.ask("POST", CONFIGMAPS, config(f"c{at}", 3))).status for at in range(4)]
        assert statuses[0] == 201
        assert statuses[-1] == 403


# ---------------------------------------------------------------------- what is given away


def test_what_is_small_is_not_given_away() -> None:
    assert not is_much(orjson.dumps(pod("p", 100)), "application/json")
    assert not is_much(b'{"data": {"k": "' + b"v" * 200_000 + b'"}}', "application/json")
    assert is_much(orjson.dumps(pod("p", 1_000)), "application/json")
    assert is_much(b"- a\n" * 3_000, "application/yaml")
    assert is_much(b" " * 300_000, "application/json")


async def test_a_body_that_says_that_it_is_long_is_given_away_as_it_came() -> None:
    async with pair() as both:
        both.away.workers.is_much = lambda _data, _content_type: False
        long = config("a", 1) | {"data": {"long": "v" * BYTES_MAX}}
        lines: list[tuple[str, str, bytes, str]] = [
            ("POST", CONFIGMAPS, orjson.dumps(long), "application/json"),
            ("PUT", f"{CONFIGMAPS}/a", orjson.dumps(long), "application/json"),
            ("PATCH", f"{CONFIGMAPS}/a", orjson.dumps(long), MERGE["Content-Type"]),
            ("POST", CONFIGMAPS, b"{" * (BYTES_MAX + 1), "application/json"),
            ("POST", CONFIGMAPS, orjson.dumps(long), "text/plain"),
        ]
        for number, (method, path, body, content_type) in enumerate(lines, 1):
            sized = {"Content-Type": content_type, "Content-Length": str(len(body))}
            await both.ask(method, path, body, sized)
            assert both.away.workers.done == number
        for method, body in (("POST", b" " * (BODY_BYTES_MAX + 1)), ("DELETE", b" " * (BYTES_MAX + 1))):
            await both.ask(method, f"{CONFIGMAPS}", body, {**JSON, "Content-Length": str(len(body))})
        assert both.away.workers.done == len(lines)


async def test_a_body_goes_to_its_worker_in_the_parts_it_came_in() -> None:
    async with serving(WorkerLimits()) as server:
        body = orjson.dumps(config("a", 1) | {"data": {"long": "v" * BYTES_MAX}})
        parts = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]

        async def read(_limit: int) -> list[bytes]:
            return parts

        headers = Headers({**JSON, "Content-Length": str(len(body))})
        request = Request("POST", f"/clusters/mallory{CONFIGMAPS}", "", headers, read, authenticated_as=ADMIN)
        assert (await server.app(request)).status == 201
        assert server.workers.done == 1
        kept = await ask(server.client("mallory"), "GET", f"{CONFIGMAPS}/a")
        assert orjson.loads(kept.body)["data"] == {"long": "v" * BYTES_MAX}


async def test_a_server_without_large_writes_has_no_process() -> None:
    async with serving(WorkerLimits()) as server:
        assert (await ask(server.client("mallory"), "POST", CONFIGMAPS, config("a", 100))).status == 201
        assert (server.workers.started, len(server.workers)) == (0, 0)


async def test_a_small_change_of_a_large_object_is_given_away() -> None:
    async with serving(WorkerLimits(), packs=packs.ALL) as server:
        tenant = server.client("mallory")
        assert (await ask(tenant, "POST", CONFIGMAPS, config("a", 5_000))).status == 201
        before = server.workers.done
        patch = {"metadata": {"labels": {"a": "b"}}}
        assert (await ask(tenant, "PATCH", f"{CONFIGMAPS}/a", patch, MERGE)).status == 200
        assert server.workers.done == before + 1


async def test_others_are_answered_while_a_large_object_is_made() -> None:
    async with serving(WorkerLimits(), packs=packs.ALL) as server:
        tenant, other = server.client("mallory"), server.client("alice")
        async with Turns() as turns:
            making = asyncio.create_task(ask(tenant, "POST", PODS, pod("p", 3_000)))
            answered = 0
            while not making.done():
                assert (await ask(other, "GET", CONFIGMAPS)).status == 200
                answered += 1
                await asyncio.sleep(0)
        assert (await making).status == 201
        assert answered >= 20
        assert turns.count >= 20


class Refuses(Admission):
    """An embedder's own, which no other process has."""


async def test_what_another_process_would_not_know_is_computed_here() -> None:
    async with serving(WorkerLimits(), admission=[Refuses()]) as server:
        assert (await ask(server.client("mallory"), "POST", CONFIGMAPS, config("a", LARGE))).status == 201
        assert server.workers.started == 0
    own = Pack("own", [replace(one, verbs=one.verbs) for one in packs.core.only("configmaps").resources])
    offered = [packs.core.only("namespaces", "serviceaccounts"), packs.apiextensions, own]
    async with serving(WorkerLimits(), packs=offered) as server:
        assert (await ask(server.client("mallory"), "POST", CONFIGMAPS, config("a", LARGE))).status == 201
        assert server.workers.started == 0
    async with serving(WorkerLimits()) as server:
        assert (await ask(server.client("root"), "POST", CONFIGMAPS, config("a", LARGE))).status == 201
        assert server.workers.started == 0


# ---------------------------------------------------------------------- whose turn it is


async def test_who_has_too_many_waiting_is_told_to_come_back() -> None:
    async with serving(WorkerLimits(processes=1, waiting=3)) as server:
        tenant = server.client("mallory")
        asked = (ask(tenant, "POST", CONFIGMAPS, config(f"c{at}", 2_000)) for at in range(10))
        answers = await asyncio.gather(*asked)
        statuses = sorted(one.status for one in answers)
        assert statuses == [201] * 4 + [429] * 6
        refused = next(one for one in answers if one.status == 429)
        assert ("Retry-After", "1") in refused.headers
        assert b"3 large requests of this logical cluster are waiting" in refused.body
        # Nothing is left of them: there is room again.
        assert (await ask(tenant, "POST", CONFIGMAPS, config("later", 2_000))).status == 201
        assert server.workers.waiting == 0


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_line_of_one_tenants_does_not_stand_before_anothers(processes: int) -> None:
    async with serving(WorkerLimits(processes=processes)) as server:
        mallory, alice = server.client("mallory"), server.client("alice")
        ended: list[str] = []
        # As many processes as there may be are there already.
        await asyncio.gather(
            *(ask(one, "POST", CONFIGMAPS, config("first", 2_000)) for one in (mallory, alice))
        )

        async def one(client: Client, name: str) -> None:
            assert (await ask(client, "POST", CONFIGMAPS, config(name, 4_000))).status == 201
            ended.append(name)

        async with asyncio.TaskGroup() as group:
            for at in range(8):
                group.create_task(one(mallory, f"m{at}"))
            await asyncio.sleep(0)
            group.create_task(one(alice, "a"))
        assert ended.index("a") <= 2


async def test_one_tenant_never_has_all_processes() -> None:
    async with serving(WorkerLimits(processes=2)) as server:
        mallory = server.client("mallory")
        asked = (ask(mallory, "POST", CONFIGMAPS, config(f"c{at}", 2_000)) for at in range(6))
        assert {one.status for one in await asyncio.gather(*asked)} == {201}
        assert server.workers.started == 1


# ---------------------------------------------------------------------- how they end


_others: Final[set[int]] = set()  # Workers of other tests' servers, which this process has as well.


def workers_of(parent: int) -> list[int]:
    """The worker processes that a process has started in this test and not yet buried."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            stat = (place / "stat").read_text() if place.name.isdigit() else ""
            command = (place / "cmdline").read_bytes() if stat else b""
        except OSError:
            continue
        if b"workers.process" in command and stat.rpartition(")")[2].split()[1] == str(parent):
            found.append(int(place.name))
    return [one for one in found if one not in _others]


@pytest.fixture
def _linux() -> Iterator[None]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("looks for processes where Linux tells of them")
    _others.update(workers_of(os.getpid()))
    yield
    _others.clear()


@pytest.mark.usefixtures("_linux")
async def test_the_request_of_a_worker_that_dies_fails_and_the_next_is_served() -> None:
    async with serving(WorkerLimits()) as server:
        tenant = server.client("mallory")
        doomed = asyncio.create_task(ask(tenant, "POST", CONFIGMAPS, config("a", 5 * LARGE)))
        await until(lambda: bool(workers_of(os.getpid())))
        os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
        answer = await doomed
        assert answer.status == 500
        assert b"the process that worked on the request ended" in answer.body
        assert (await ask(tenant, "POST", CONFIGMAPS, config("a", LARGE))).status == 201
        assert (server.workers.started, server.workers.died) == (2, 1)


@pytest.mark.usefixtures("_linux")
async def test_a_worker_that_died_while_it_was_idle_costs_no_request() -> None:
    async with serving(WorkerLimits()) as server:
        tenant = server.client("mallory")
        assert (await ask(tenant, "POST", CONFIGMAPS, config("a", 2_000))).status == 201
        [worker] = workers_of(os.getpid())
        os.kill(worker, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{worker}/exe").exists())
        assert (await ask(tenant, "POST", CONFIGMAPS, config("b", 2_000))).status == 201


async def test_what_takes_too_much_computing_is_given_up() -> None:
    async with serving(WorkerLimits(cpu_s=0.01)) as server:
        tenant = server.client("mallory")
        answer = await ask(tenant, "POST", CONFIGMAPS, config("a", LARGE))
        assert (answer.status, orjson.loads(answer.body)["reason"]) == (504, "Timeout")
        assert (await ask(tenant, "GET", f"{CONFIGMAPS}/a")).status == 404


async def test_what_takes_too_much_memory_is_given_up() -> None:
    async with serving(WorkerLimits(memory_bytes=420 << 20)) as server:
        tenant = server.client("mallory")
        assert (await ask(tenant, "POST", CONFIGMAPS, config("a", 2_000))).status == 201
        body = {**config("b", 1), "other": [[[] for _ in range(1_000)] for _ in range(450)]}
        answer = await ask(tenant, "POST", CONFIGMAPS, body)
        assert answer.status in (413, 500), answer.body
        assert (await ask(tenant, "POST", CONFIGMAPS, config("c", 2_000))).status == 201


@pytest.mark.usefixtures("_linux")
async def test_a_request_that_is_given_up_gives_up_its_worker() -> None:
    async with serving(WorkerLimits(processes=1)) as server:
        tenant = server.client("mallory")
        doomed = asyncio.create_task(ask(tenant, "POST", CONFIGMAPS, config("a", 5 * LARGE)))
        await until(lambda: bool(workers_of(os.getpid())))
        waits = asyncio.create_task(ask(tenant, "POST", CONFIGMAPS, config("b", 2_000)))
        gives_up = asyncio.create_task(ask(tenant, "POST", CONFIGMAPS, config("c", 2_000)))
        await until(lambda: server.workers.waiting == 2)
        for task in (doomed, gives_up):
            task.cancel()
        await asyncio.wait({doomed, gives_up})
        assert (await waits).status == 201
        assert server.workers.started == 2
        assert [(await ask(tenant, "GET", f"{CONFIGMAPS}/{name}")).status for name in "abc"] == [
            404,
            200,
            404,
        ]


@pytest.mark.usefixtures("_linux")
async def test_workers_end_when_nobody_needs_them_and_with_their_server() -> None:
    async with serving(WorkerLimits(idle_s=0.05)) as server:
        assert (await ask(server.client("mallory"), "POST", CONFIGMAPS, config("a", 2_000))).status == 201
        await until(lambda: not workers_of(os.getpid()))
        assert len(server.workers) == 0
    async with serving(WorkerLimits()) as server:
        assert (await ask(server.client("mallory"), "POST", CONFIGMAPS, config("a", 2_000))).status == 201
        [worker] = workers_of(os.getpid())
        assert os.getsid(worker) == os.getsid(0), "Linux weighs niceness within a session"
        assert os.getpgid(worker) == worker, "what a terminal sends to the server is not for it"
    assert not workers_of(os.getpid())


@pytest.mark.usefixtures("_linux")
async def test_a_worker_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLING_ADMIN_TOKEN", "of-the-operator")
    async with serving(WorkerLimits()) as server:
        assert (await ask(server.client("mallory"), "POST", CONFIGMAPS, config("a", 2_000))).status == 201
        [worker] = workers_of(os.getpid())
        assert b"of-the-operator" not in Path(f"/proc/{worker}/environ").read_bytes()
        opened = [str(one.readlink()) for one in Path(f"/proc/{worker}/fd").iterdir()]
        sockets = [one for one in opened if one.startswith("socket:")]
        # Its own end, and the pair by which its loop wakes itself.
        assert len(sockets) == 3


_SERVER: Final = """
import asyncio, orjson
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.services.workers.pool import WorkerLimits
from clusterling.storage import memory
async def main():
    workers = WorkerLimits()
    async with (
        memory.open() as store,
        ApiServer(store, run_controllers=False, external_url="http://127.0.0.1", workers=workers).running() as server,
    ):
        await server.clusters.create("mallory")
        body = {"metadata": {"name": "a"}, "data": {f"k{at}": "v" for at in range(%d)}}
        path, headers = "/api/v1/namespaces/default/configmaps", {"Content-Type": "application/json"}
        print("asks", flush=True)
        answer = await server.client("mallory").request("POST", path, None, orjson.dumps(body), headers)
        print(answer.status, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.usefixtures("_linux")
@pytest.mark.parametrize("keys", [2_000, 100_000])
async def test_workers_end_with_a_server_that_is_killed(keys: int) -> None:
    """Idle ones, and those at work."""
    command = [sys.executable, "-c", _SERVER % keys]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert await asyncio.to_thread(server.stdout.readline) == "asks\n"
            await until(lambda: bool(workers_of(server.pid)))
            workers = workers_of(server.pid)
            if keys == 2_000:
                assert await asyncio.to_thread(server.stdout.readline) == "201\n"
        finally:
            server.kill()
        await until(lambda: not any(Path(f"/proc/{one}/exe").exists() for one in workers))
