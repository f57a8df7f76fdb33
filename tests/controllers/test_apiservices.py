"""The APIServices of a cluster are the groups and versions that it serves, built in and custom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from clusterling import packs
from clusterling.machinery.meta import Object
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory
from tests.controllers.conftest import exists, until

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
CLUSTERS = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MANAGED = "kube-aggregator.kubernetes.io/automanaged"
V1, V2 = f"{SERVICES}/v1.example.com", f"{SERVICES}/v2.example.com"


def definition(plural: str = "widgets", versions: tuple[str, ...] = ("v1",)) -> Object:
    kind = plural.removesuffix("s").capitalize()
    told = [
        {
            "name": version,
            "served": True,
            "storage": version == "v1",
            "schema": {"openAPIV3Schema": {"type": "object"}},
        }
        for version in versions
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": plural, "kind": kind},
            "versions": told,
        },
    }


def service(name: str, **labels: str) -> Object:
    version, _, group = name.partition(".")
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name, "labels": labels},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": 7, "versionPriority": 7},
    }


async def names(api: Client) -> list[str]:
    return [one["metadata"]["name"] for one in (await api.get(SERVICES))["items"]]


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with memory.open() as store, ApiServer(store, packs=packs.choose("all")).running() as server:
        await server.clusters.create("team")
        yield server


async def test_every_group_and_version_that_is_built_in_is_available(server: ApiServer) -> None:
    api = server.client("team")
    groups = (await api.get("/apis"))["groups"]
    told = {f"{one['version']}.{group['name']}" for group in groups for one in group["versions"]}
    # All but the group of APIServices itself, which is the aggregator's own.
    assert set(await names(api)) == {"v1."} | told - {"v1.apiregistration.k8s.io"}
    core = await api.get(f"{SERVICES}/v1.")
    assert core["metadata"]["labels"] == {MANAGED: "onstart"}
    (available,) = core["status"]["conditions"]
    assert (available["type"], available["status"], available["reason"]) == ("Available", "True", "Local")
    assert available["lastTransitionTime"] == core["metadata"]["creationTimestamp"]


async def test_a_cluster_has_those_of_the_groups_that_it_serves(server: ApiServer) -> None:
    await server.clusters.create("small", packs="apiregistration,apps/deployments,core/configmaps")
    api = server.client("small")
    assert await names(api) == ["v1.", "v1.apps"]
    page = await api.get(f"{SERVICES}?limit=1")
    assert [one["metadata"]["name"] for one in page["items"]] == ["v1."]
    assert page["metadata"]["remainingItemCount"] == 1
    assert not await exists(api, f"{SERVICES}/v1.batch")


async def test_versions_of_custom_kinds_come_and_go_with_their_definitions(server: ApiServer) -> None:
    api = server.client("team")
    made = await api.post(DEFINITIONS, definition(versions=("v1", "v2")))
    for path in (V1, V2):
        await until(partial(exists, api, path))
    told = await api.get(V1)
    assert told["metadata"]["labels"] == {MANAGED: "true"}
    assert told["spec"] == {
        "group": "example.com",
        "version": "v1",
        "groupPriorityMinimum": 1000,
        "versionPriority": 100,
    }
    assert told["status"]["conditions"][0]["lastTransitionTime"] == told["metadata"]["creationTimestamp"]

    made["spec"]["versions"][1]["served"] = False
    path = f"{DEFINITIONS}/widgets.example.com"
    await api.put(path, made)

    async def only_the_first() -> bool:
        return [name for name in await names(api) if name.endswith("example.com")] == ["v1.example.com"]

    await until(only_the_first)
    # A version stays for as long as any definition of its group serves it.
    await api.post(DEFINITIONS, definition("gadgets", ("v1", "v2")))
    await until(lambda: exists(api, V2))
    await api.delete(path)
    await until(lambda: _gone(api, path))
    assert await exists(api, V1)
    await api.delete(f"{DEFINITIONS}/gadgets.example.com")
    await until(lambda: _gone(api, V1))
    await until(lambda: _gone(api, V2))


async def _gone(api: Client, path: str) -> bool:
    return not await exists(api, path)


async def test_what_is_changed_or_deleted_comes_back_as_it_was(server: ApiServer) -> None:
    api = server.client("team")
    await api.post(DEFINITIONS, definition())
    await until(lambda: exists(api, V1))
    first = await api.get(V1)
    await api.put(V1, {**first, "spec": {**first["spec"], "versionPriority": 9}})

    async def as_it_was() -> bool:
        return bool((await api.get(V1))["spec"] == first["spec"])

    await until(as_it_was)
    await api.delete(V1)
    await until(lambda: exists(api, V1))


async def test_one_that_is_not_marked_is_somebody_elses(server: ApiServer) -> None:
    api = server.client("team")
    mine = await api.post(SERVICES, service("v1.example.com"))
    await api.post(DEFINITIONS, definition())
    # This one is looked after, and of no kind: once it is gone the other has been looked at, too.
    await api.post(SERVICES, service("v9.nobody.example.com", **{MANAGED: "true"}))
    await until(lambda: _gone(api, f"{SERVICES}/v9.nobody.example.com"))
    assert (await api.get(V1))["metadata"]["resourceVersion"] == mine["metadata"]["resourceVersion"]


async def test_a_cluster_that_serves_the_kind_only_later_has_them_then(server: ApiServer) -> None:
    await server.clusters.create("later", packs="default")
    api = server.client("later")
    await api.post(DEFINITIONS, definition())
    path = f"{CLUSTERS}/later"
    root = server.client("root")
    await root.patch(path, {"spec": {"packs": ["default", "apiregistration"]}})
    await until(lambda: exists(api, V1))
