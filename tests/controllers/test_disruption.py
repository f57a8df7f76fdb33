"""PodDisruptionBudgets are counted, so that evictions work for whoever runs pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clusterling import packs
from clusterling.controllers.disruption import DELETION_S, DisruptionController
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, rfc3339
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory
from tests.controllers.conftest import Served, exists, owned_by, until

HOME = "/api/v1/namespaces/default"
PODS = f"{HOME}/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
APPS = "/apis/apps/v1/namespaces/default"
SELECTOR: Object = {"matchLabels": {"app": "a"}}
POD_SPEC: Object = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with memory.open() as store, ApiServer(store, packs=packs.choose("all")).running() as server:
        await server.clusters.create("team")
        yield Served(server, store, server.client("team"))


@pytest.fixture
def api(served: Served) -> Client:
    return served.cluster


async def make_pod(api: Client, name: str, *, ready: bool = True, owner: Object | None = None) -> None:
    metadata: Object = {"name": name, "labels": SELECTOR["matchLabels"]}
    if owner is not None:
        metadata["ownerReferences"] = owned_by(owner, controller=True)
    await api.post(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": POD_SPEC})
    await say(api, name, ready=ready)


async def say(api: Client, name: str, *, ready: bool) -> None:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    await api.patch(f"{PODS}/{name}/status", {"status": status})


async def make_budget(api: Client, name: str = "b", **spec: Any) -> None:
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"selector": SELECTOR, **spec},
    }
    await api.post(BUDGETS, body)


async def comes_to(
    api: Client, name: str = "b", *, expected: int, healthy: int, desired: int, allowed: int
) -> Object:
    """The status once it says so."""
    wanted = {
        "expectedPods": expected,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
    }
    found: Object = {}

    async def does() -> bool:
        budget = await api.get(f"{BUDGETS}/{name}")
        found.clear()
        found.update(budget["status"])
        return (
            found.get("observedGeneration") == budget["metadata"]["generation"]
            and wanted.items() <= found.items()
        )

    try:
        await until(does)
    except TimeoutError:
        assert found == wanted
    return found


async def workload(api: Client, plural: str, kind: str, name: str, replicas: int, **metadata: Any) -> Object:
    template = {
        "metadata": {"labels": SELECTOR["matchLabels"]},
        "spec": {"containers": POD_SPEC["containers"]},
    }
    spec = {"replicas": replicas, "selector": SELECTOR, "template": template}
    body = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
    return await api.post(f"{APPS}/{plural}", body)


async def test_ready_pods_are_counted_as_they_come_and_go(api: Client) -> None:
    await make_budget(api, minAvailable=1)
    status = await comes_to(api, expected=0, healthy=0, desired=1, allowed=0)
    assert [(one["type"], one["status"], one["reason"]) for one in status["conditions"]] == [
        ("DisruptionAllowed", "False", "InsufficientPods")
    ]
    for name in ("p1", "p2", "p3"):
        await make_pod(api, name)
    status = await comes_to(api, expected=3, healthy=3, desired=1, allowed=2)
    assert [(one["status"], one["reason"], one["observedGeneration"]) for one in status["conditions"]] == [
        ("True", "SufficientPods", 1)
    ]
    await say(api, "p1", ready=False)
    await comes_to(api, expected=3, healthy=2, desired=1, allowed=1)
    await api.patch(f"{PODS}/p2", {"metadata": {"labels": {"app": "other"}}})
    await comes_to(api, expected=2, healthy=1, desired=1, allowed=0)
    await api.delete(f"{PODS}/p1", {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
    await comes_to(api, expected=1, healthy=1, desired=1, allowed=0)
    await api.patch(f"{BUDGETS}/b", {"spec": {"minAvailable": 0}})
    await comes_to(api, expected=1, healthy=1, desired=0, allowed=1)


async def test_evictions_go_through_as_long_as_there_is_room(api: Client) -> None:
    for name in ("p1", "p2", "p3"):
        await make_pod(api, name)
    await make_budget(api, minAvailable=2)
    await comes_to(api, expected=3, healthy=3, desired=2, allowed=1)
    await evict(api, "p1")
    with pytest.raises(ApiError) as refused:
        await evict(api, "p2")
    assert refused.value.code == 429
    await api.delete(f"{PODS}/p1", {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
    await make_pod(api, "p4")
    status = await comes_to(api, expected=3, healthy=3, desired=2, allowed=1)
    assert "disruptedPods" not in status
    await evict(api, "p2")


async def evict(api: Client, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    await api.post(f"{PODS}/{name}/eviction", body)


async def test_of_those_that_were_evicted_only_whose_end_may_come_are_kept_in_mind(api: Client) -> None:
    for name in ("soon", "late", "more"):
        await make_pod(api, name)
    await make_budget(api, minAvailable=1)
    await comes_to(api, expected=3, healthy=3, desired=1, allowed=2)
    now = datetime.now(UTC)
    times = {
        "soon": rfc3339(now - timedelta(seconds=5)),
        "late": rfc3339(now - timedelta(seconds=DELETION_S + 5)),
        "gone": rfc3339(now),
    }
    await api.patch(f"{BUDGETS}/b/status", {"status": {"disruptedPods": times}})
    status = await comes_to(api, expected=3, healthy=2, desired=1, allowed=1)
    assert status["disruptedPods"] == {"soon": times["soon"]}


async def test_shares_are_of_what_the_pods_controllers_want(api: Client) -> None:
    deployment = await workload(api, "deployments", "Deployment", "d", 10)
    ours = {"ownerReferences": owned_by(deployment, controller=True)}
    old = await workload(api, "replicasets", "ReplicaSet", "old", 2, **ours)
    new = await workload(api, "replicasets", "ReplicaSet", "new", 9, **ours)
    alone = await workload(api, "replicasets", "ReplicaSet", "alone", 3)
    for number, owner in enumerate((old, new, new, alone)):
        await make_pod(api, f"p{number}", owner=owner)
    await make_pod(api, "nobodys")
    await make_budget(api, "most", maxUnavailable=9)
    await comes_to(api, "most", expected=13, healthy=5, desired=4, allowed=1)
    await make_budget(api, "share", minAvailable="35%")
    await comes_to(api, "share", expected=13, healthy=5, desired=5, allowed=0)
    await make_budget(api, "rest", maxUnavailable="75%")
    await comes_to(api, "rest", expected=13, healthy=5, desired=3, allowed=2)


async def test_pods_of_custom_kinds_that_scale_are_counted_by_their_scale(api: Client) -> None:
    await api.post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        kind_of("scalables", "Scalable", scale=True),
    )
    owner = await api.post(
        "/apis/example.com/v1/namespaces/default/scalables",
        {
            "apiVersion": "example.com/v1",
            "kind": "Scalable",
            "metadata": {"name": "s"},
            "spec": {"replicas": 4},
        },
    )
    await make_pod(api, "p", owner=owner)
    await make_budget(api, maxUnavailable="75%")
    await comes_to(api, expected=4, healthy=1, desired=1, allowed=0)


def kind_of(plural: str, kind: str, *, scale: bool) -> Object:
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    version: Object = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "subresources": {"status": {}, **({"scale": paths} if scale else {})},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [version],
        },
    }


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        ({"apiVersion": "apps/v1", "kind": "ReplicaSet"}, 'found no controllers for pod "p"'),
        (
            {"apiVersion": "example.com/v1", "kind": "Nothing"},
            'no matches for kind "Nothing" in version "example.com/v1"',
        ),
        ({"apiVersion": "v1", "kind": "ConfigMap"}, "configmaps does not implement the scale subresource"),
    ],
)
async def test_where_nobody_knows_how_many_there_should_be_nothing_is_allowed(
    api: Client, owner: Object, message: str
) -> None:
    # The garbage collector has begun to delete those whose owner is gone; they count until their node lets go of them.
    await make_pod(api, "p", owner={**owner, "metadata": {"name": "x", "uid": "u"}})
    await make_budget(api, maxUnavailable=1)

    async def told() -> bool:
        found = await api.get(f"{BUDGETS}/b")
        conditions = found["status"].get("conditions") or [{}]
        told = [(one.get("status"), one.get("reason"), one.get("message")) for one in conditions]
        return told == [("False", "SyncFailed", message)] and found["status"]["disruptionsAllowed"] == 0

    await until(told)


async def test_what_nobody_has_counted_yet_allows_nothing() -> None:
    async with (
        memory.open() as store,
        ApiServer(store, packs=packs.choose("all"), run_controllers=False).running() as server,
    ):
        await server.clusters.create("team")
        api = server.client("team")
        await make_pod(api, "a")
        await make_budget(api, minAvailable=0)
        with pytest.raises(ApiError) as refused:
            await evict(api, "a")
        assert refused.value.details is not None
        assert refused.value.details["retryAfterSeconds"] == 10
        assert refused.value.headers["Retry-After"] == "10"
        counted = {"observedGeneration": 1, "disruptionsAllowed": 1}
        await api.patch(f"{BUDGETS}/b/status", {"status": counted})
        await evict(api, "a")
        status = (await api.get(f"{BUDGETS}/b"))["status"]
        assert (status["disruptionsAllowed"], list(status["disruptedPods"])) == (0, ["a"])


async def test_clusters_without_budgets_are_not_looked_at_again(served: Served) -> None:
    """Their pods may change as often as they like."""
    api = served.cluster
    await make_pod(api, "p1")
    controller = next(one for one, _ in served.server._runtime._queues if one.name == "disruption")
    assert isinstance(controller, DisruptionController)
    team = await served.server.clusters.get("team")

    async def known() -> bool:
        return team.id in controller._without

    await until(known)
    async with served.store.watch(f"{team.id}/core/pods/", after=0) as watch:
        async for batch in watch:
            assert [key for event in batch.events for key in controller.keys(event)] == []
            break
    await make_budget(api, minAvailable=0)
    await comes_to(api, expected=1, healthy=1, desired=0, allowed=1)
    assert await exists(api, f"{PODS}/p1")
