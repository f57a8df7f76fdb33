"""The life of a logical cluster."""

from __future__ import annotations

import asyncio

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.registry.ports import ROOT_CA
from clusterling.services.client import Client
from tests.controllers.conftest import PATIENCE_S, Served, config_map, exists, until

MAPS = "/api/v1/namespaces/default/configmaps"


async def names(api: Client) -> list[str]:
    return [item["metadata"]["name"] for item in (await api.get(MAPS))["items"]]


async def test_a_deleted_cluster_answers_no_more_and_leaves_no_data(served: Served) -> None:
    team = await served.server.clusters.get("team")
    await served.cluster.post(MAPS, config_map("a"))
    assert await served.store.count(f"{team.id}/") > 0
    await served.server.clusters.delete("team")
    with pytest.raises(ApiError) as refused:
        await served.cluster.get(MAPS)
    assert refused.value.code == 403

    async def swept() -> bool:
        return await served.store.count(f"{team.id}/") == 0

    await until(swept)
    root = served.server.client("root")
    path = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/team"

    async def gone() -> bool:
        return not await exists(root, path)

    await until(gone)


async def test_a_namesake_shares_nothing_with_the_dead(served: Served) -> None:
    await served.cluster.post(MAPS, config_map("a"))
    before = await served.server.clusters.get("team")
    await served.server.clusters.delete("team")

    async def made_again() -> bool:
        try:
            await served.server.clusters.create("team")
        except ApiError as error:
            assert error.code == 409, error
            return False
        return True

    await until(made_again)
    after = await served.server.clusters.get("team")
    assert after.id != before.id
    assert await names(served.cluster) == [ROOT_CA]


async def test_the_watches_of_a_deleted_cluster_end(served: Served) -> None:
    async with served.cluster.watching(f"{MAPS}?fieldSelector=metadata.name%21%3D{ROOT_CA}") as events:
        await served.server.clusters.delete("team")
        async with asyncio.timeout(PATIENCE_S):
            assert [event async for event in events] == []


async def test_the_watches_of_a_deleted_cluster_see_no_deletions(served: Served) -> None:
    await served.cluster.post(MAPS, config_map("a"))
    listed = await served.cluster.get(MAPS)
    since = listed["metadata"]["resourceVersion"]
    team = await served.server.clusters.get("team")
    async with served.cluster.watching(f"{MAPS}?resourceVersion={since}") as events:
        await served.server.clusters.delete("team")

        async def swept() -> bool:
            return await served.store.count(f"{team.id}/") == 0

        await until(swept)
        async with asyncio.timeout(PATIENCE_S):
            assert [event async for event in events] == []


async def test_root_stays(served: Served) -> None:
    with pytest.raises(ApiError) as refused:
        await served.server.clusters.delete("root")
    assert refused.value.code == 403


async def test_two_servers_over_one_process_share_nothing(served: Served) -> None:
    from clusterling.server import ApiServer
    from clusterling.storage import memory

    async with memory.open() as store, ApiServer(store).running() as other:
        assert [cluster.name for cluster in await other.clusters.list()] == ["root"]


async def test_a_list_is_shared_until_the_collection_changes(served: Served) -> None:
    await served.cluster.post(MAPS, config_map("a"))
    _, one, again = [await served.cluster.request("GET", MAPS) for _ in range(3)]
    assert one.body is again.body
    await served.cluster.post(MAPS, config_map("b"))
    assert await names(served.cluster) == ["a", "b", ROOT_CA]
    await served.cluster.delete(f"{MAPS}/a")
    assert await names(served.cluster) == ["b", ROOT_CA]
    await served.server.clusters.create("other")
    assert await names(served.server.client("other")) == [ROOT_CA]


async def test_a_tenants_own_kind_of_that_name_is_no_logical_cluster(served: Served) -> None:
    await served.server.clusters.create("victim")
    await served.server.client("victim").post(MAPS, config_map("a"))
    victim = await served.server.clusters.get("victim")
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    known_as = {"plural": "logicalclusters", "kind": "LogicalCluster"}
    spec = {"group": "tenancy.clusterling.io", "scope": "Cluster", "names": known_as, "versions": [version]}
    kind = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "logicalclusters.tenancy.clusterling.io"},
        "spec": spec,
    }
    await served.cluster.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", kind)
    path = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
    fake = {
        "apiVersion": "tenancy.clusterling.io/v1alpha1",
        "kind": "LogicalCluster",
        "metadata": {"name": "mine", "finalizers": ["tenancy.clusterling.io/cluster"]},
        "status": {"id": victim.id},
    }
    await served.cluster.post(path, fake)
    await served.cluster.delete(f"{path}/mine")
    # Clusters are removed one after the other: once this one is swept, the fake would have had its turn.
    other = await served.server.clusters.create("other")
    await served.server.clusters.delete("other")

    async def swept() -> bool:
        return await served.store.count(f"{other.id}/") == 0

    await until(swept)
    assert await exists(served.cluster, f"{path}/mine")
    assert await exists(served.server.client("victim"), f"{MAPS}/a")
