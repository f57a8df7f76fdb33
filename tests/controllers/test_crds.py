"""CustomResourceDefinitions from POST to deletion, through the API alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clusterling.machinery.codec import encode_stored
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.storage.store import Op
from tests.controllers.conftest import PATIENCE_S, Served, exists, until

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"


def crd(properties: Object | None = None, **spec: Any) -> Object:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": properties or {"size": {"type": "integer"}}}},
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version],
            **spec,
        },
    }


def widget(name: str, **spec: Any) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


async def test_a_kind_is_served_when_its_post_returns(served: Served) -> None:
    made = await served.cluster.post(CRDS, crd())
    conditions = {one["type"]: one["status"] for one in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    await served.cluster.post(WIDGETS, widget("a", size=1))
    groups = await served.cluster.get("/apis")
    assert "example.com" in [group["name"] for group in groups["groups"]]


async def test_each_cluster_has_its_own_version_of_a_kind(served: Served) -> None:
    await served.server.clusters.create("other")
    other = served.server.client("other")
    await served.cluster.post(CRDS, crd({"size": {"type": "integer"}}))
    await other.post(CRDS, crd({"size": {"type": "string"}}))
    await served.cluster.post(WIDGETS, widget("a", size=1))
    await other.post(WIDGETS, widget("a", size="big"))
    for client, size in ((served.cluster, "big"), (other, 1)):
        with pytest.raises(ApiError) as refused:
            await client.post(WIDGETS, widget("b", size=size))
        assert refused.value.code == 422


async def test_a_changed_schema_applies_to_what_is_stored(served: Served) -> None:
    api = served.cluster
    await api.post(CRDS, crd({"size": {"type": "integer"}, "old": {"type": "string"}}))
    await api.post(WIDGETS, widget("a", size=1, old="x"))
    before = await api.get(f"{WIDGETS}/a")
    changed = crd({"size": {"type": "integer"}, "colour": {"type": "string", "default": "red"}})
    changed["metadata"]["resourceVersion"] = (await api.get(f"{CRDS}/widgets.example.com"))["metadata"][
        "resourceVersion"
    ]
    await api.put(f"{CRDS}/widgets.example.com", changed)
    after = await api.get(f"{WIDGETS}/a")
    assert after["spec"] == {"size": 1, "colour": "red"}
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert (await api.get(WIDGETS))["items"] == [after]


async def test_deleting_a_kind_deletes_its_objects_and_ends_its_watches(served: Served) -> None:
    api = served.cluster
    await api.post(CRDS, crd())
    await api.post(WIDGETS, widget("a", size=1))
    async with api.watching(WIDGETS) as events:
        await api.delete(f"{CRDS}/widgets.example.com")
        async with asyncio.timeout(PATIENCE_S):
            kinds = [event["type"] async for event in events]
    assert kinds == ["ADDED", "DELETED"]

    async def gone() -> bool:
        return not await exists(api, f"{CRDS}/widgets.example.com")

    await until(gone)
    with pytest.raises(ApiError) as refused:
        await api.get(WIDGETS)
    assert refused.value.code == 404
    await api.post(CRDS, crd())
    assert (await api.get(WIDGETS))["items"] == []


async def test_of_two_kinds_with_one_name_the_first_is_established(served: Served) -> None:
    api = served.cluster
    await api.post(CRDS, crd())
    second = crd(names={"plural": "wodgets", "kind": "Widget"})
    second["metadata"]["name"] = "wodgets.example.com"
    made = await api.post(CRDS, second)
    conditions = {one["type"]: (one["status"], one["reason"]) for one in made["status"]["conditions"]}
    assert conditions["NamesAccepted"] == ("False", "ListKindConflict")
    assert conditions["Established"][0] == "False"
    with pytest.raises(ApiError) as refused:
        await api.get("/apis/example.com/v1/namespaces/default/wodgets")
    assert refused.value.code == 404


async def test_a_kind_called_clusters_is_no_way_out(served: Served) -> None:
    tricky = crd(names={"plural": "clusters", "kind": "Cluster"})
    tricky["metadata"]["name"] = "clusters.example.com"
    await served.cluster.post(CRDS, tricky)
    listed = await served.cluster.get("/apis/example.com/v1/namespaces/default/clusters")
    assert listed["kind"] == "ClusterList"


async def test_a_stored_crd_that_cannot_be_served_takes_no_other_down(served: Served) -> None:
    made = await served.cluster.post(CRDS, crd())
    team = await served.server.clusters.get("team")
    made["metadata"] = {"name": "odd.example.com", "uid": "1"}
    made["spec"]["versions"] = "none"
    made["status"]["acceptedNames"] = {"plural": "odd", "kind": "Odd"}
    key = f"{team.id}/apiextensions.k8s.io/customresourcedefinitions/-/odd.example.com"
    await served.store.write([Op(key, encode_stored(made))])
    await served.cluster.post(WIDGETS, widget("a", size=1))
    groups = await served.cluster.get("/apis/example.com/v1")
    assert [one["name"] for one in groups["resources"]] == ["widgets", "widgets/status"]


async def test_true_where_there_was_one_is_a_change(served: Served) -> None:
    await served.cluster.post(CRDS, crd({"any": {"x-kubernetes-preserve-unknown-fields": True}}))
    await served.cluster.post(WIDGETS, widget("a", any={"at": [1, 0]}))
    changed = await served.cluster.patch(f"{WIDGETS}/a", {"spec": {"any": {"at": [True, False]}}})
    assert changed["spec"]["any"] == {"at": [True, False]}
    assert [type(one) for one in changed["spec"]["any"]["at"]] == [bool, bool]
    assert changed["metadata"]["generation"] == 2
