"""One call names what keeps an object from being deleted, and tells nothing that who asks may not read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.registry.strategy import User
from clusterling.server import ApiServer
from clusterling.services.app import Cluster, Decision
from clusterling.services.client import Client
from clusterling.services.requestinfo import RequestInfo, parse
from clusterling.storage import memory
from tests.controllers.conftest import config_map, owned_by, until

EXPLAIN = "/explain/deletion"
NAMESPACES = "/api/v1/namespaces"
MAPS = f"{NAMESPACES}/default/configmaps"
SECRETS = f"{NAMESPACES}/default/secrets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
HOLD = "example.com/hold"
READER = User("reader")


class NoSecrets:
    """The reader may read everything but secrets, and nothing that is no resource."""

    async def authorize(self, user: User, cluster: Cluster | None, info: RequestInfo) -> Decision:
        if user != READER:
            return Decision(cluster is not None)
        return Decision(
            info.is_resource and info.verb in {"get", "list"} and info.resource not in {"secrets", "pods"}
        )


@dataclass
class Served:
    server: ApiServer
    admin: Client

    async def explained(self, path: str, user: User | None = None) -> Object:
        client = self.admin if user is None else self.server.client("team", user)
        return await client.get(EXPLAIN + path)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with memory.open() as store, ApiServer(store, authorizer=NoSecrets()).running() as server:
        await server.clusters.create("team", packs="all")
        yield Served(server, server.client("team"))


async def _is_deleting(client: Client, path: str) -> bool:
    return "deletionTimestamp" in (await client.get(path))["metadata"]


def test_a_question_is_authorized_as_reading_the_object_that_it_is_about() -> None:
    info = parse("GET", f"/clusters/team{EXPLAIN}{MAPS}/a", "")
    assert (info.cluster, info.is_resource, info.explains) == ("team", True, True)
    assert (info.verb, info.group, info.version, info.resource) == ("get", "", "v1", "configmaps")
    assert (info.namespace, info.name, info.subresource) == ("default", "a", "")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{MAPS}/a"),
        ("DELETE", f"{MAPS}/a"),
        ("GET", MAPS),
        ("GET", f"{MAPS}/a/status"),
        ("GET", "/version"),
        ("GET", f"{EXPLAIN}{MAPS}/a"),
        ("GET", "/api/v1/watch/namespaces/default/configmaps/a"),
    ],
)
def test_what_is_no_reading_of_one_object_is_no_question(method: str, path: str) -> None:
    info = parse(method, EXPLAIN + path, "")
    assert not info.is_resource
    assert not info.explains


async def test_a_finalizer_is_named_with_who_put_it_there(served: Served) -> None:
    await served.admin.post(MAPS, config_map("a", finalizers=[HOLD]), fieldManager="operator")
    before = await served.explained(f"{MAPS}/a")
    assert not before["deleting"]
    assert before["summary"].startswith(
        f"ConfigMap a is not being deleted; a deletion waits for finalizer {HOLD}"
    )
    await served.admin.delete(f"{MAPS}/a")
    told = await served.explained(f"{MAPS}/a")
    assert told["deleting"]
    assert told["kind"] == "DeletionExplanation"
    (blocker,) = told["blockedBy"]
    assert (blocker["reason"], blocker["finalizer"]) == ("Finalizer", HOLD)
    (owner,) = blocker["putBy"]
    assert (owner["manager"], owner["operation"]) == ("operator", "Update")
    assert owner["time"]


async def test_what_holds_a_foreground_deletion_is_told_down_to_the_last_dependent(served: Served) -> None:
    api = served.admin
    owner = await api.post(MAPS, config_map("owner"))
    child = await api.post(
        MAPS, config_map("child", ownerReferences=owned_by(owner, blockOwnerDeletion=True))
    )
    references = owned_by(child, blockOwnerDeletion=True)
    await api.post(MAPS, config_map("grandchild", ownerReferences=references, finalizers=[HOLD]))
    await api.delete(f"{MAPS}/owner", propagationPolicy="Foreground")
    await until(lambda: _is_deleting(api, f"{MAPS}/grandchild"))
    told = await served.explained(f"{MAPS}/owner")
    (waits,) = told["blockedBy"]
    assert (waits["reason"], waits["count"], waits["examples"][0]["name"]) == ("Dependents", 1, "child")
    (waits,) = waits["examples"][0]["blockedBy"]
    assert waits["examples"][0]["name"] == "grandchild"
    assert waits["examples"][0]["blockedBy"][0]["finalizer"] == HOLD
    assert told["summary"].endswith(f"below that, finalizer {HOLD}")


async def test_a_circle_of_owners_is_told_once(served: Served) -> None:
    api = served.admin
    one = await api.post(MAPS, config_map("one", finalizers=[HOLD]))
    other = await api.post(
        MAPS, config_map("other", finalizers=[HOLD], ownerReferences=owned_by(one, blockOwnerDeletion=True))
    )
    back = owned_by(other, blockOwnerDeletion=True)
    await api.patch(f"{MAPS}/one", {"metadata": {"ownerReferences": back}})
    for name in ("one", "other"):
        await api.delete(f"{MAPS}/{name}", propagationPolicy="Foreground")
    told = await served.explained(f"{MAPS}/one")
    by_reason = {one["reason"]: one for one in told["blockedBy"]}
    (example,) = by_reason["Dependents"]["examples"]
    assert example["name"] == "other"
    assert not told["truncated"]


async def test_a_dependent_whose_owner_nobody_can_look_for_is_told_to_be_undecided(served: Served) -> None:
    api = served.admin
    owner = await api.post(MAPS, config_map("owner"))
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    role = {
        "metadata": {"name": "r", "ownerReferences": owned_by(owner, blockOwnerDeletion=True)},
        "rules": [],
    }
    await api.post(roles, role)
    await api.delete(f"{MAPS}/owner", propagationPolicy="Foreground")
    told = await served.explained(f"{MAPS}/owner")
    (example,) = told["blockedBy"][0]["examples"]
    (undecided,) = example["blockedBy"]
    assert undecided["reason"] == "Undecided"
    assert "its owner ConfigMap owner of v1 is namespaced, and the object is not" in undecided["message"]


async def test_what_is_left_in_a_namespace_is_told_by_kind(served: Served) -> None:
    api = served.admin
    await api.post(NAMESPACES, {"metadata": {"name": "stage"}})
    for number in range(7):
        await api.post(f"{NAMESPACES}/stage/configmaps", config_map(f"m{number}", finalizers=[HOLD]))
    await api.delete(f"{NAMESPACES}/stage")
    await until(lambda: _is_deleting(api, f"{NAMESPACES}/stage/configmaps/m6"))
    told = await served.explained(f"{NAMESPACES}/stage")
    (content,) = told["blockedBy"]
    kinds = {one["resource"]: one for one in content["kinds"]}
    assert (kinds["configmaps"]["count"], kinds["configmaps"]["finalizers"]) == (7, {HOLD: 7})
    assert [one["name"] for one in kinds["configmaps"]["examples"]] == ["m0", "m1", "m2", "m3", "m4"]


async def test_what_is_left_of_a_definition_is_told(served: Served) -> None:
    api = served.admin
    schema = {"openAPIV3Schema": {"type": "object"}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "widgets", "kind": "Widget"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    await api.post(CRDS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    widget = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "finalizers": [HOLD]},
    }
    await api.post("/apis/example.com/v1/namespaces/default/widgets", widget)
    await api.delete(f"{CRDS}/widgets.example.com")
    told = await served.explained(f"{CRDS}/widgets.example.com")
    (instances,) = told["blockedBy"]
    assert (instances["reason"], instances["count"]) == ("Instances", 1)
    (left,) = instances["kinds"]
    assert left["examples"][0]["blockedBy"][0]["finalizer"] == HOLD


async def test_a_pod_is_told_to_have_time_and_who_ends_it(served: Served) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "far"}
    await served.admin.post(f"{NAMESPACES}/default/pods", {"metadata": {"name": "p"}, "spec": spec})
    await served.admin.delete(f"{NAMESPACES}/default/pods/p")
    (blocker,) = (await served.explained(f"{NAMESPACES}/default/pods/p"))["blockedBy"]
    assert blocker["reason"] == "GracePeriod"
    assert "the kubelet of node far" in blocker["message"]


async def test_of_what_may_not_be_read_nothing_is_told_but_that_it_may_not(served: Served) -> None:
    api = served.admin
    owner = await api.post(MAPS, config_map("owner"))
    references = owned_by(owner, blockOwnerDeletion=True)
    secret = {"metadata": {"name": "hidden", "ownerReferences": references, "finalizers": [HOLD]}}
    await api.post(SECRETS, secret)
    await api.delete(f"{MAPS}/owner", propagationPolicy="Foreground")
    told = await served.explained(f"{MAPS}/owner", READER)
    assert told["blockedBy"][0]["count"] == 0
    assert told["withheld"] == ["secrets"]
    assert "hidden" not in str(told)
    with pytest.raises(ApiError) as refused:
        await served.explained(f"{SECRETS}/hidden", READER)
    assert refused.value.code == 403
    await api.post(NAMESPACES, {"metadata": {"name": "stage"}})
    await api.post(f"{NAMESPACES}/stage/secrets", {"metadata": {"name": "hidden", "finalizers": [HOLD]}})
    await api.delete(f"{NAMESPACES}/stage")
    told = await served.explained(f"{NAMESPACES}/stage", READER)
    assert "hidden" not in str(told)
    assert "secrets" in told["withheld"]


async def test_an_object_that_is_not_there_is_not_explained(served: Served) -> None:
    with pytest.raises(ApiError) as refused:
        await served.explained(f"{MAPS}/nobody")
    assert (refused.value.code, refused.value.message) == (404, 'configmaps "nobody" not found')


async def test_that_no_controllers_run_is_told_where_it_is_the_reason() -> None:
    async with memory.open() as store, ApiServer(store, run_controllers=False).running() as server:
        await server.clusters.create("team")
        api = server.client("team")
        await api.post(NAMESPACES, {"metadata": {"name": "stage"}})
        await api.delete(f"{NAMESPACES}/stage")
        told = await api.get(f"{EXPLAIN}{NAMESPACES}/stage")
        assert told["controllers"] == "this server runs no controllers"
        await server.clusters.delete("team")
        root = server.client("root")
        path = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/team"
        told = await root.get(EXPLAIN + path)
        (blocker,) = told["blockedBy"]
        assert blocker["reason"] == "Controller"
        assert "removes the cluster's data first" in blocker["message"]
        assert told["summary"].endswith("this server runs no controllers")
