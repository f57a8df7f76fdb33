"""Who gets which metrics, in which form, and that they are what happened."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from clusterling.registry.strategy import User
from clusterling.server import ApiServer
from clusterling.services.metrics.families import FAMILIES
from clusterling.services.metrics.recorder import OWN_KINDS_MAX
from clusterling.services.metrics.tenants import LIMITS_EACH, SERIES_EACH
from clusterling.services.request import Headers, Request, Response, StreamingResponse
from clusterling.services.workers.pool import WorkerLimits
from clusterling.storage import memory
from clusterling.tenancy.authorization import ADMIN

SCRAPERS = "s" * 40
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
CLUSTERS = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
JSON = {"Content-Type": "application/json"}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class World:
    """A server with the clusters `team-a` and `team-b`, asked from outside."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    async def ask(self, path: str, token: str = "", *, method: str = "GET", accept: str = "") -> Response:
        async def nothing(_limit: int) -> list[bytes]:
            return []

        fields = {"Authorization": f"Bearer {token}"} if token else {}
        if accept:
            fields["Accept"] = accept
        path, _, query = path.partition("?")
        return await self.server.app(Request(method, path, query, Headers(fields), nothing))

    async def token(self, cluster: str) -> str:
        document = await self.server.clusters.kubeconfig(cluster)
        found: str = document["users"][0]["user"]["token"]
        return found


@asynccontextmanager
async def serving(**options: object) -> AsyncIterator[World]:
    async with memory.open() as store:
        server = ApiServer(
            store,
            admin_tokens={"root-token": ADMIN},
            metrics_token=SCRAPERS,
            external_url="https://x",
            **options,  # type: ignore[arg-type]
        )
        async with server.running():
            for name in ("team-a", "team-b"):
                await server.clusters.create(name)
            yield World(server)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as it:
        yield it


Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def samples(response: Response) -> Samples:
    assert response.status == 200, response.body
    found: Samples = {}
    for family in text_format(response.body.decode()):
        for one in family.samples:
            labels = tuple(sorted(one.labels.items()))
            known = found.setdefault(one.name, {})
            assert labels not in known, f"{one.name}{labels} comes twice"
            known[labels] = one.value
    return found


def value(found: Samples, name: str, /, **labels: str) -> float:
    return sum(
        number for known, number in found.get(name, {}).items() if labels.items() <= dict(known).items()
    )


@pytest.mark.parametrize(
    ("path", "whose", "status"),
    [
        ("/metrics", "", 401),
        ("/metrics", "wrong", 401),
        ("/metrics", "team-a", 401),
        ("/metrics", "root-token", 200),
        ("/metrics", SCRAPERS, 200),
        ("/clusters/root/metrics", "root-token", 200),
        ("/clusters/root/metrics", SCRAPERS, 401),
        ("/clusters/root/metrics", "team-a", 401),
        ("/clusters/team-a/metrics", "team-a", 200),
        ("/clusters/team-a/metrics", "root-token", 200),
        ("/clusters/team-b/metrics", "team-a", 401),
        ("/clusters/team-a/metrics", SCRAPERS, 401),
        ("/clusters/team-a/metrics", "", 401),
        ("/clusters/nobody/metrics", "root-token", 403),
        ("/metrics/slis", "", 401),
        ("/metrics/slis", "team-a", 401),
        ("/metrics/slis", "root-token", 200),
        ("/metrics/slis", SCRAPERS, 200),
        ("/clusters/team-a/metrics/slis", "team-a", 200),
        ("/clusters/team-b/metrics/slis", "team-a", 401),
        ("/clusters/team-a/metrics/slis", SCRAPERS, 401),
    ],
)
async def test_metrics_are_for_those_who_may_have_them(
    world: World, path: str, whose: str, status: int
) -> None:
    token = await world.token(whose) if whose == "team-a" else whose
    assert (await world.ask(path, token)).status == status


@pytest.mark.parametrize(
    "path",
    ["/api", "/clusters/team-a/api", "/clusters/root/api", "/metrics/", "/metrics/slis/", "/version/x"],
)
async def test_the_scrapers_token_opens_nothing_else(world: World, path: str) -> None:
    assert (await world.ask(path, SCRAPERS)).status == 401


async def test_a_tenant_is_told_of_itself_alone(world: World) -> None:
    for name in ("team-a", "team-b"):
        await world.server.client(name).get(CONFIGMAPS)
    response = await world.ask("/clusters/team-a/metrics", await world.token("team-a"))
    assert b"team-b" not in response.body and b"~other" not in response.body
    found = samples(response)
    assert {name.rpartition("_")[0] for name in found} & {"process_cpu_seconds", "apiserver_request"} == set()
    assert {dict(labels)["cluster"] for rows in found.values() for labels in rows} == {"team-a"}
    assert value(found, "clusterling_cluster_requests_total", kind="read") == 1


async def test_what_happened_is_what_is_told(world: World) -> None:
    client = world.server.client("team-a")
    for number in range(3):
        await client.post(CONFIGMAPS, {"metadata": {"name": f"c{number}"}})
    await client.get(CONFIGMAPS)
    await client.request("GET", f"{CONFIGMAPS}/none")
    await client.delete(f"{CONFIGMAPS}/c0")
    found = samples(await world.ask("/metrics", SCRAPERS))
    alike = {"resource": "configmaps", "group": "", "version": "v1", "component": "apiserver"}
    requests = "apiserver_request_total"
    assert value(found, requests, **alike, verb="POST", code="201", scope="resource") == 3
    assert value(found, requests, **alike, verb="LIST", code="200", scope="namespace") == 1
    assert value(found, requests, **alike, verb="GET", code="404", scope="resource") == 1
    assert value(found, requests, **alike, verb="DELETE", code="200", scope="resource") == 1
    assert value(found, "apiserver_request_duration_seconds_bucket", **alike, verb="POST", le="+Inf") == 3
    assert value(found, "apiserver_response_sizes_count", **alike, verb="LIST") == 1
    assert value(found, "clusterling_cluster_requests_total", cluster="team-a", kind="write") == 4
    assert value(found, "clusterling_cluster_request_errors_total", cluster="team-a", code="4xx") == 1
    assert value(found, "clusterling_cluster_objects", cluster="team-a") > 0
    assert value(found, "clusterling_clusters") == 3
    assert value(found, "clusterling_store_commit_duration_seconds_count") > 0
    assert value(found, "leader_election_master_status", name="main") == 1
    assert value(found, "process_resident_memory_bytes") > 0


async def test_what_workers_did_is_told_and_how_many_died() -> None:
    large = {"metadata": {"name": "large"}, "data": {f"k{at}": "v" for at in range(20_000)}}
    limits = WorkerLimits(processes=1, waiting=1)
    async with serving(workers=limits) as world:
        body = orjson.dumps(large)

        async def post() -> int:
            answer = await world.server.client("team-a").request("POST", CONFIGMAPS, body=body, headers=JSON)
            return answer.status

        async with asyncio.TaskGroup() as group:
            posts = [group.create_task(post()) for _ in range(3)]
        assert sorted(one.result() for one in posts) == [201, 409, 429]
        found = samples(await world.ask("/metrics", SCRAPERS))
        assert value(found, "clusterling_workers") == 1
        assert value(found, "clusterling_workers_started_total") == 1
        assert value(found, "clusterling_workers_died_total") == 0
        assert value(found, "clusterling_worker_requests_total") == 2
        assert value(found, "clusterling_worker_requests_waiting") == 0
        refused = {"flow_schema": "workers", "reason": "queue-full"}
        assert value(found, "apiserver_flowcontrol_rejected_requests_total", **refused) == 1
    async with serving(workers=WorkerLimits(cpu_s=0.01)) as world:
        assert await post() == 504
        found = samples(await world.ask("/metrics", SCRAPERS))
        assert value(found, "clusterling_workers") == 0
        assert value(found, "clusterling_workers_died_total") == 1


async def test_writes_refused_for_too_many_that_wait_for_the_store_are_told_as_such(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterling.storage.batcher.WAITING_MAX", 0)
    client = world.server.client("team-a")
    async with asyncio.TaskGroup() as group:
        posts = [
            group.create_task(
                client.request(
                    "POST", CONFIGMAPS, body=orjson.dumps({"metadata": {"name": f"c{at}"}}), headers=JSON
                )
            )
            for at in range(300)
        ]
    refused = sum(one.result().status == 429 for one in posts)
    found = samples(await world.ask("/metrics", SCRAPERS))
    full = {"flow_schema": "store", "reason": "queue-full"}
    assert refused > 0
    assert value(found, "apiserver_flowcontrol_rejected_requests_total", **full) == refused
    assert value(found, "clusterling_cluster_throttled_total", cluster="team-a") == refused


async def test_results_of_health_checks_are_told_as_upstream_tells_them(world: World) -> None:
    broken = False

    async def mine() -> str | None:
        return "broken" if broken else None

    world.server.app.health.add("mine", mine)
    for path in ("/readyz", "/readyz?verbose", "/livez", "/readyz?exclude=store"):
        assert (await world.ask(path)).status == 200
    broken = True
    assert (await world.ask("/readyz")).status == 500
    assert (
        await world.ask("/clusters/root/readyz/mine", "root-token")
    ).body == b"internal server error: broken\n"
    answer = await world.ask("/metrics/slis", SCRAPERS)
    lines = answer.body.decode().splitlines()
    told = [line for line in lines if not line.startswith("#")]
    assert [line for line in told if "mine" in line or "store" in line or "livez" in line] == [
        'kubernetes_healthcheck{name="mine",type="readyz"} 0.0',
        'kubernetes_healthcheck{name="ping",type="livez"} 1.0',
        'kubernetes_healthcheck{name="store",type="readyz"} 1.0',
        'kubernetes_healthchecks_total{name="mine",status="error",type="readyz"} 1.0',
        'kubernetes_healthchecks_total{name="mine",status="success",type="readyz"} 3.0',
        'kubernetes_healthchecks_total{name="ping",status="success",type="livez"} 1.0',
        'kubernetes_healthchecks_total{name="store",status="success",type="readyz"} 3.0',
    ]
    assert value(samples(answer), "process_start_time_seconds") > 0
    names = {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")}
    assert names == {"kubernetes_healthcheck", "kubernetes_healthchecks_total", "process_start_time_seconds"}
    assert "kubernetes_healthcheck" not in samples(await world.ask("/metrics", SCRAPERS))


async def test_a_watch_is_open_while_it_is_and_counted_when_it_ends(world: World) -> None:
    response = await world.ask(f"/clusters/team-a{CONFIGMAPS}?watch=1", "root-token")
    assert isinstance(response, StreamingResponse)
    found = samples(await world.ask("/metrics", SCRAPERS))
    assert value(found, "apiserver_longrunning_requests", verb="WATCH", resource="configmaps") == 1
    assert value(found, "clusterling_cluster_watches", cluster="team-a") == 1
    assert value(found, "apiserver_request_total", verb="WATCH") == 0
    await response.close()
    found = samples(await world.ask("/metrics", SCRAPERS))
    assert value(found, "apiserver_longrunning_requests", verb="WATCH", resource="configmaps") == 0
    assert value(found, "clusterling_cluster_watches", cluster="team-a") == 0
    assert value(found, "apiserver_request_total", verb="WATCH", code="200") == 1
    assert value(found, "clusterling_cluster_requests_total", cluster="team-a", kind="watch") == 1


async def test_a_deleted_cluster_loses_its_series(world: World) -> None:
    await world.server.client("team-b").get(CONFIGMAPS)
    assert b'cluster="team-b"' in (await world.ask("/metrics", SCRAPERS)).body
    await world.server.clusters.delete("team-b")
    assert b'cluster="team-b"' not in (await world.ask("/metrics", SCRAPERS)).body


async def test_both_formats_are_what_their_parsers_take_and_every_family_is_known(world: World) -> None:
    for name in ("team-a", "team-b"):
        await world.server.client(name).get(CONFIGMAPS)
    plain = await world.ask("/metrics", SCRAPERS)
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    known = {family.name.removesuffix("_total") for family in FAMILIES}
    told = {family.name for family in text_format(plain.body.decode())}
    assert {name for name in told if not name.startswith("process_")} == known
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    modern = await world.ask("/metrics", SCRAPERS, accept=accept)
    assert modern.content_type.startswith("application/openmetrics-text")
    assert modern.body.endswith(b"# EOF\n")
    families = open_metrics(modern.body.decode())  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= known


async def test_objects_bytes_and_the_use_of_limits_are_what_the_quota_counts(world: World) -> None:
    hard = {"objects": 40, "bytes": "1Mi", "watches": 4, "count/configmaps": 8, "requestsPerSecond": 900}
    await world.server.clusters.create("team-c", {"quota": {"hard": hard}})
    client = world.server.client("team-c")
    for number in range(3):
        await client.post(CONFIGMAPS, {"metadata": {"name": f"c{number}"}, "data": {"k": "v" * 1000}})
    watch = await world.ask(f"/clusters/team-c{CONFIGMAPS}?watch=1", await world.token("team-c"))
    assert isinstance(watch, StreamingResponse)
    usage = await world.server.client("root").get(f"{CLUSTERS}/team-c/usage")
    used = usage["used"]
    for path, token in (("/metrics", SCRAPERS), ("/clusters/team-c/metrics", "root-token")):
        found = samples(await world.ask(path, token))
        assert value(found, "clusterling_cluster_objects", cluster="team-c") == used["objects"]
        assert value(found, "clusterling_cluster_bytes", cluster="team-c") == used["bytes"]
        ratios = {
            dict(labels)["limit"]: ratio
            for labels, ratio in found["clusterling_cluster_quota_used_ratio"].items()
        }
        assert ratios == {
            "objects": used["objects"] / 40,
            "bytes": used["bytes"] / (1 << 20),
            "watches": 1 / 4,
            "count/configmaps": used["count/configmaps"] / 8,
        }
    await watch.close()


async def test_of_many_limits_a_scrape_gets_the_nearest_and_the_cluster_itself_all(world: World) -> None:
    many = {f"count/k{number}.x.io": 10 + number for number in range(60)}
    hard = {**many, "count/configmaps": 4, "count/secrets": 0}
    await world.server.clusters.create("team-c", {"quota": {"hard": hard}})
    client = world.server.client("team-c")
    await client.post(CONFIGMAPS, {"metadata": {"name": "c"}})
    found = samples(await world.ask("/metrics", SCRAPERS))["clusterling_cluster_quota_used_ratio"]
    assert len(found) == LIMITS_EACH
    assert max(found, key=lambda labels: found[labels]) == (
        ("cluster", "team-c"),
        ("limit", "count/configmaps"),
    )
    found = samples(await world.ask("/clusters/team-c/metrics", "root-token"))[
        "clusterling_cluster_quota_used_ratio"
    ]
    assert len(found) == len(hard)
    assert found[("cluster", "team-c"), ("limit", "count/secrets")] == 0


async def test_a_cluster_makes_no_more_series_than_it_is_counted_for(world: World) -> None:
    hard = {f"count/k{number}.x.io": 10 for number in range(60)}
    await world.server.clusters.create("team-c", {"quota": {"hard": hard}})
    await world.server.client("team-c").get(CONFIGMAPS)
    found = samples(await world.ask("/metrics", SCRAPERS))
    own = [labels for rows in found.values() for labels in rows if ("cluster", "team-c") in labels]
    assert len(own) == SERIES_EACH


async def test_neither_tokens_nor_content_nor_names_of_objects_are_told(world: World) -> None:
    token = await world.token("team-a")
    secret = "hush-hush"
    await world.ask(f"/clusters/team-a{CONFIGMAPS}/{secret}?fieldManager={secret}", token)
    await world.ask(f"/clusters/team-a/api/v1/namespaces/{secret}/configmaps/x/{secret}", token)
    await world.ask(f"/clusters/team-a/{secret}", token)
    await world.ask(f"/clusters/{secret}/api", token)
    await world.ask(f"/apis/{secret}/v1/{secret}", token, method=secret.upper())
    body = (await world.ask("/metrics", SCRAPERS)).body
    assert secret.encode() not in body.lower() and token.encode() not in body
    assert b"root-token" not in body and SCRAPERS.encode() not in body


async def test_subresources_and_verbs_that_there_are_none_of_make_no_series(world: World) -> None:
    for number in range(50):
        await world.ask(f"/clusters/team-a{CONFIGMAPS}/x/part{number}", "root-token")
        await world.ask(f"/clusters/team-a{CONFIGMAPS}", "root-token", method=f"VERB{number}")
    recorder = world.server.app.recorder
    assert not any("part" in label or "VERB" in label for labels in recorder.series for label in labels)
    assert len(recorder.series) < 20 and len(recorder._known) < 20


async def test_kinds_that_tenants_define_make_no_more_series_than_there_is_room_for(world: World) -> None:
    client = world.server.client("team-a")
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for number in range(3):
        names = {
            "plural": f"k{number}s",
            "singular": f"k{number}",
            "kind": f"K{number}",
            "listKind": f"K{number}List",
        }
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        spec = {"group": "x.io", "scope": "Namespaced", "names": names, "versions": [version]}
        await client.post(CRDS, {"metadata": {"name": f"k{number}s.x.io"}, "spec": spec})
    world.server.app.recorder._own_kinds = OWN_KINDS_MAX - 1
    for number in range(3):
        await client.get(f"/apis/x.io/v1/namespaces/default/k{number}s")
    found = samples(await world.ask("/metrics", SCRAPERS))
    assert value(found, "apiserver_request_total", resource="k0s") == 1
    assert value(found, "apiserver_request_total", resource="other", group="other") == 2


async def test_nothing_is_counted_or_told_where_that_is_off() -> None:
    async with serving(metrics=False) as world:
        await world.server.client("team-a").get(CONFIGMAPS)
        assert (await world.ask("/metrics", SCRAPERS)).status == 401
        assert (await world.ask("/metrics", "root-token")).status == 404
        assert world.server.app.recorder.requests() == {}


def test_names_have_units_and_counters_end_in_total() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name) and family.help.endswith((".", "it."))
        assert (family.type == "counter") == family.name.endswith("_total")


async def test_who_is_no_administrator_of_root_is_refused(world: World) -> None:
    other = User("viewer", ("system:authenticated",), realm=ADMIN.realm)
    answer = await world.server.client("root", other).request("GET", "/metrics")
    assert answer.status == 403


def test_the_library_that_writes_formats_is_not_loaded_before_the_first_scrape() -> None:
    code = "import sys, clusterling.cli, clusterling.server; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
