"""Deleting a namespace takes everything in it, and nothing can be put in meanwhile."""

from __future__ import annotations

import pytest

from clusterling.machinery.errors import ApiError
from tests.controllers.conftest import Served, config_map, exists, until

NAMESPACES = "/api/v1/namespaces"
STAGE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "stage"}}


async def test_every_cluster_begins_with_the_namespaces_that_clients_expect(served: Served) -> None:
    await served.server.clusters.create("other")
    uids: list[str] = []
    for cluster in ("team", "other"):
        items = (await served.server.client(cluster).get(NAMESPACES))["items"]
        by_name = {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}
        assert sorted(by_name) == ["default", "kube-node-lease", "kube-public", "kube-system"]
        assert by_name["kube-system"] == (await served.server.clusters.get(cluster)).uid
        uids += by_name.values()
    assert len(set(uids)) == 8


async def test_a_deleted_namespace_takes_its_content_along(served: Served) -> None:
    api = served.cluster
    await api.post(NAMESPACES, STAGE)
    await api.post(f"{NAMESPACES}/stage/configmaps", config_map("a"))
    answer = await api.delete(f"{NAMESPACES}/stage")
    assert answer["status"]["phase"] == "Terminating"

    async def gone() -> bool:
        return not await exists(api, f"{NAMESPACES}/stage")

    await until(gone)
    await api.post(NAMESPACES, STAGE)
    assert not await exists(api, f"{NAMESPACES}/stage/configmaps/a")


async def test_what_keeps_a_namespace_is_told_in_its_conditions(served: Served) -> None:
    api = served.cluster
    await api.post(NAMESPACES, STAGE)
    await api.post(f"{NAMESPACES}/stage/configmaps", config_map("a", finalizers=["example.com/hold"]))
    await api.delete(f"{NAMESPACES}/stage")

    async def told() -> bool:
        conditions = (await api.get(f"{NAMESPACES}/stage"))["status"].get("conditions") or ()
        return any(
            condition["type"] == "NamespaceFinalizersRemaining"
            and condition["status"] == "True"
            and "example.com/hold in 1 resource instances" in condition["message"]
            for condition in conditions
        )

    await until(told)
    with pytest.raises(ApiError) as refused:
        await api.post(f"{NAMESPACES}/stage/configmaps", config_map("late"))
    assert refused.value.code == 403
    assert "because it is being terminated" in refused.value.message
    await api.patch(f"{NAMESPACES}/stage/configmaps/a", {"metadata": {"finalizers": None}})

    async def gone() -> bool:
        return not await exists(api, f"{NAMESPACES}/stage")

    await until(gone)


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_protected_namespaces_stay(served: Served, name: str) -> None:
    with pytest.raises(ApiError) as refused:
        await served.cluster.delete(f"{NAMESPACES}/{name}")
    assert refused.value.code == 403
    assert "this namespace may not be deleted" in refused.value.message


async def test_content_in_a_namespace_that_is_not_there_is_refused(served: Served) -> None:
    with pytest.raises(ApiError) as refused:
        await served.cluster.post(f"{NAMESPACES}/nowhere/configmaps", config_map("a"))
    assert (refused.value.code, refused.value.message) == (404, 'namespaces "nowhere" not found')
