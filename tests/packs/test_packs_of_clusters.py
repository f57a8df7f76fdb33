"""What a logical cluster serves by its `spec.packs`, through the server: discovery, documents, verbs, memory."""

from __future__ import annotations

import asyncio
import copy
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from clusterling import packs
from clusterling.machinery.errors import ApiError
from clusterling.packs import builtin
from clusterling.registry.choice import Offer
from clusterling.registry.pack import Pack
from clusterling.server import LOGICAL_CLUSTERS, ApiServer
from clusterling.storage import memory
from clusterling.storage.store import Batch, Event

_WIDGETS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with memory.open() as store, ApiServer(store).running() as running:
        yield running


async def _served(server: ApiServer, cluster: str) -> set[str]:
    """Every kind that discovery tells of, as `<plural>.<group>`."""
    client = server.client(cluster)
    found = {}
    with suppress(ApiError):
        found[""] = await client.get("/api/v1")
    for group in (await client.get("/apis"))["groups"]:
        for version in group["versions"]:
            found[group["name"]] = await client.get(f"/apis/{version['groupVersion']}")
    return {
        f"{one['name']}.{group}" for group, listed in found.items() for one in listed["resources"]
        if "/" not in one["name"]
    }  # fmt: skip


async def test_a_cluster_without_packs_serves_only_crds_and_what_they_make(server: ApiServer) -> None:
    await server.clusters.create("bare", packs="none")
    bare = server.client("bare")
    assert await _served(server, "bare") == {"customresourcedefinitions.apiextensions.k8s.io"}
    await bare.post(CRDS, _WIDGETS)
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one"}}
    made = await bare.post("/apis/example.com/v1/namespaces/anywhere/widgets", widget)
    assert made["metadata"]["namespace"] == "anywhere"
    with pytest.raises(ApiError) as refused:
        await bare.get("/api/v1/namespaces/default")
    assert refused.value.code == 404


async def test_a_cluster_without_secrets_has_no_trace_of_them(server: ApiServer) -> None:
    await server.clusters.create("team-a", packs="core,-secrets")
    team = server.client("team-a")
    assert "secrets." not in await _served(server, "team-a")
    for document in (await team.get("/openapi/v3"))["paths"]:
        text = str(await team.get(f"/openapi/v3/{document}"))
        assert "core.v1.Secret'" not in text
        assert "/secrets" not in text
    with pytest.raises(ApiError) as refused:
        await team.get("/api/v1/namespaces/default/secrets")
    assert refused.value.code == 404
    assert [one["metadata"]["name"] for one in (await team.get("/api/v1/namespaces"))["items"]] == [
        "default", "kube-node-lease", "kube-public", "kube-system",
    ]  # fmt: skip


async def test_of_a_kind_left_out_of_everything_no_document_review_or_quota_speaks(server: ApiServer) -> None:
    await server.clusters.create("team-a", packs="all,-secrets")
    team = server.client("team-a")
    assert not {one for one in await _served(server, "team-a") if one.startswith("secrets.")}
    for path in (await team.get("/openapi/v3"))["paths"]:
        if not path.startswith("apis/"):
            assert "/secrets" not in str(await team.get(f"/openapi/v3/{path}"))
    described = await team.get("/openapi/v2")
    assert not [path for path in described["paths"] if "/secrets" in path]
    assert "io.k8s.api.core.v1.Secret" not in described["definitions"]
    asked = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"secrets": "0", "count/secrets": "0", "configmaps": "9"}},
    }
    await team.post("/api/v1/namespaces/default/resourcequotas", asked)
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    await team.post("/api/v1/namespaces/default/configmaps", settings)
    # What makes itself secrets elsewhere goes without.
    token = await team.post("/api/v1/namespaces/default/serviceaccounts/default/token", {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {},
    })  # fmt: skip
    assert token["status"]["token"]


async def test_a_kind_added_to_a_living_cluster_is_served_by_the_next_request(server: ApiServer) -> None:
    await server.clusters.create("team-a", packs="none")
    team, root = server.client("team-a"), server.client("root")
    with pytest.raises(ApiError):
        await team.get("/api/v1/namespaces")
    cluster = await root.get(f"{LOGICAL_CLUSTERS}/team-a")
    cluster["spec"]["packs"].append("core")
    await root.put(f"{LOGICAL_CLUSTERS}/team-a", cluster)
    assert len((await team.get("/api/v1/namespaces"))["items"]) == 4


async def test_a_crd_in_the_place_of_a_kind_left_out_begins_empty() -> None:
    """What the clusters that serve the kind begin with does not show through."""
    first = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "first"},
        "value": 1,
    }
    classes = builtin.resource("scheduling.k8s.io", "v1", "priorityclasses")
    offer = Offer((Pack("classes", (classes,), (first,)), packs.apiextensions), (packs.apiextensions,))
    place = "/apis/scheduling.k8s.io/v1/priorityclasses"
    crd: dict[str, Any] = copy.deepcopy(_WIDGETS)
    crd["metadata"] = {
        "name": "priorityclasses.scheduling.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
    }
    crd["spec"] |= {"group": "scheduling.k8s.io", "scope": "Cluster"}
    crd["spec"]["names"] = {"plural": "priorityclasses", "kind": "PriorityClass"}
    async with memory.open() as store, ApiServer(store, offer=offer).running() as server:
        await server.clusters.create("with", packs="classes")
        await server.clusters.create("without")
        assert [one["value"] for one in (await server.client("with").get(place))["items"]] == [1]
        without = server.client("without")
        await without.post(CRDS, crd)
        assert (await without.get(place))["items"] == []
        await without.post(place, first)
        assert len((await without.get(place))["items"]) == 1


async def test_clusters_with_the_same_choice_share_one_catalog_however_they_say_it(server: ApiServer) -> None:
    said = {
        "a": "core/configmaps,core/namespaces",
        "b": "core/namespaces,core/configmaps",
        "c": "default",
        "d": "",
    }
    catalogs = {}
    for name, text in said.items():
        await server.clusters.create(name, packs=text)
        cluster = await server.pool.find(name)
        assert cluster is not None
        await cluster.ready()
        catalogs[name] = cluster.catalog
    assert catalogs["a"] is catalogs["b"]
    assert catalogs["c"] is catalogs["d"]
    assert catalogs["a"] is not catalogs["c"]


async def test_idle_clusters_with_all_packs_hold_nothing_that_those_without_do_not(server: ApiServer) -> None:
    def held() -> int:
        # A stream lets go of what it has passed on once in 64 batches, whoever made them.
        gc.collect()
        return sum(not isinstance(each, Batch | Event) for each in gc.get_objects())

    async def added_by(packs: str) -> int:
        before = held()
        for number in range(200):
            await server.clusters.create(f"{packs}-{number}", packs=packs)
        while not server._runtime.idle:
            await asyncio.sleep(0.01)
        return held() - before

    await added_by("default")
    none, everything = await added_by("none"), await added_by("all")
    # One object a cluster would be two hundred.
    assert abs(everything - none) < 100


async def test_an_embedder_says_what_is_on_offer() -> None:
    mine = (packs.core.only("configmaps"),)
    async with (
        memory.open() as store,
        ApiServer(store, packs=mine, offer=Offer(mine, mine)).running() as server,
    ):
        with pytest.raises(ApiError, match='there is no "apiextensions"; there are none, default, all, core'):
            await server.clusters.create("team-a", packs="apiextensions")
        await server.clusters.create("team-a", packs="all")
        assert await _served(server, "team-a") == {"configmaps."}


async def test_root_serves_what_the_server_does(server: ApiServer) -> None:
    root = server.client("root")
    cluster: dict[str, Any] = await root.get(f"{LOGICAL_CLUSTERS}/root")
    cluster["spec"]["packs"] = ["all"]
    with pytest.raises(ApiError, match=r"spec\.packs: Forbidden: root serves what the server does"):
        await root.put(f"{LOGICAL_CLUSTERS}/root", cluster)
