"""Every namespace has an account and the certificates to trust, from its first moment and for good."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from clusterling import packs
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory
from clusterling.storage.store import Store
from tests.controllers.conftest import Served, exists, until

NAMESPACES = "/api/v1/namespaces"
STAGE: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "stage"}}
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
ACCOUNT = "serviceaccounts/default"
TRUSTED = "configmaps/kube-root-ca.crt"


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with memory.open() as store:
        yield store


async def provided(api: Client, namespace: str) -> bool:
    return all([await exists(api, f"{NAMESPACES}/{namespace}/{what}") for what in (ACCOUNT, TRUSTED)])


async def told(api: Client, namespace: str) -> str:
    return str((await api.get(f"{NAMESPACES}/{namespace}/{TRUSTED}"))["data"]["ca.crt"])


async def test_a_namespace_has_its_account_and_certificates_when_its_create_returns(store: Store) -> None:
    server = ApiServer(store, ca_pem=PEM.encode(), run_controllers=False)
    async with server.running():
        await server.clusters.create("team")
        api = server.client("team")
        await api.post(NAMESPACES, STAGE)
        for namespace in ("default", "kube-system", "kube-public", "kube-node-lease", "stage"):
            assert (await api.get(f"{NAMESPACES}/{namespace}/{ACCOUNT}"))["metadata"]["uid"]
            trusted = await api.get(f"{NAMESPACES}/{namespace}/{TRUSTED}")
            assert trusted["data"] == {"ca.crt": PEM}
            assert trusted["metadata"]["annotations"]["kubernetes.io/description"].startswith("Contains a CA")
            assert trusted["metadata"]["creationTimestamp"]


async def test_a_pod_can_be_made_at_once_in_a_new_namespace(store: Store) -> None:
    async with ApiServer(store, packs=packs.choose("all"), run_controllers=False).running() as server:
        await server.clusters.create("team")
        api = server.client("team")
        await api.post(NAMESPACES, STAGE)
        spec = {"containers": [{"name": "a", "image": "i"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        made = await api.post(f"{NAMESPACES}/stage/pods", pod)
        assert made["spec"]["serviceAccountName"] == "default"


async def test_a_cluster_keeps_nothing_of_its_own_for_its_first_namespaces(served: Served) -> None:
    await until(lambda: provided(served.cluster, "default"))
    team = await served.server.clusters.get("team")
    assert (await served.store.list(f"{team.id}/core/")).entries == []


@pytest.mark.parametrize("namespace", ["default", "stage"])
async def test_what_is_deleted_comes_back_as_another(served: Served, namespace: str) -> None:
    api = served.cluster
    await api.post(NAMESPACES, STAGE)
    for what in (ACCOUNT, TRUSTED):
        path = f"{NAMESPACES}/{namespace}/{what}"
        uid = (await api.get(path))["metadata"]["uid"]
        await api.delete(path)

        async def is_back(path: str = path) -> bool:
            return await exists(api, path)

        await until(is_back)
        assert (await api.get(path))["metadata"]["uid"] != uid


@pytest.mark.parametrize("namespace", ["default", "stage"])
async def test_certificates_that_were_changed_are_put_back(served: Served, namespace: str) -> None:
    api = served.cluster
    await api.post(NAMESPACES, STAGE)
    path = f"{NAMESPACES}/{namespace}/{TRUSTED}"
    change = {
        "data": {"ca.crt": "mine", "more": "x"},
        "metadata": {"annotations": {"kubernetes.io/description": None}},
    }
    changed = await api.patch(path, change)
    assert changed["data"]["more"] == "x"

    async def is_put_back() -> bool:
        now = await api.get(path)
        return bool(now["data"] == {"ca.crt": ""} and now["metadata"]["annotations"])

    await until(is_put_back)
    assert (await api.get(path))["metadata"]["uid"] == changed["metadata"]["uid"]


async def test_a_note_on_the_certificates_stays(served: Served) -> None:
    api = served.cluster
    path = f"{NAMESPACES}/default/{TRUSTED}"
    noted = await api.patch(path, {"metadata": {"labels": {"a": "b"}}, "data": {"more": "x"}})

    async def is_put_back() -> bool:
        return "more" not in (await api.get(path))["data"]

    await until(is_put_back)
    assert (await api.get(path))["metadata"]["labels"] == noted["metadata"]["labels"] == {"a": "b"}


async def test_a_namespace_that_goes_takes_them_along_and_its_successor_has_others(served: Served) -> None:
    api = served.cluster
    for name in ("stage", "kube-node-lease"):
        namespace = {**STAGE, "metadata": {"name": name}}
        if name == "stage":
            await api.post(NAMESPACES, namespace)
        uid = (await api.get(f"{NAMESPACES}/{name}/{ACCOUNT}"))["metadata"]["uid"]
        await api.delete(f"{NAMESPACES}/{name}")

        async def is_gone(name: str = name) -> bool:
            return not await exists(api, f"{NAMESPACES}/{name}")

        await until(is_gone)
        assert not await exists(api, f"{NAMESPACES}/{name}/{ACCOUNT}")
        assert not await exists(api, f"{NAMESPACES}/{name}/{TRUSTED}")
        await api.post(NAMESPACES, namespace)
        assert (await api.get(f"{NAMESPACES}/{name}/{ACCOUNT}"))["metadata"]["uid"] != uid


async def test_older_namespaces_are_given_them_when_their_cluster_begins_to_serve_the_kinds(
    store: Store,
) -> None:
    async with ApiServer(store, ca_pem=PEM.encode()).running() as server:
        await server.clusters.create("team", packs="core/namespaces")
        api = server.client("team")
        await api.post(NAMESPACES, STAGE)
        await api.delete(f"{NAMESPACES}/kube-node-lease")

        async def is_gone() -> bool:
            return not await exists(api, f"{NAMESPACES}/kube-node-lease")

        await until(is_gone)
        growth = {"spec": {"packs": ["core/namespaces", "core/configmaps", "core/serviceaccounts"]}}
        clusters = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
        await server.client("root").patch(f"{clusters}/team", growth)
        await until(lambda: provided(api, "stage"))
        assert await told(api, "stage") == await told(api, "default") == PEM

        async def none_is_left_behind() -> bool:
            accounts = (await api.get("/api/v1/serviceaccounts"))["items"]
            return "kube-node-lease" not in {one["metadata"]["namespace"] for one in accounts}

        await until(none_is_left_behind)


async def test_another_authority_is_told_in_every_namespace(store: Store) -> None:
    async with ApiServer(store, ca_pem=b"old").running() as server:
        await server.clusters.create("team")
        await server.client("team").post(NAMESPACES, STAGE)
    async with ApiServer(store, ca_pem=PEM.encode()).running() as server:
        api = server.client("team")

        async def is_told() -> bool:
            return [await told(api, one) for one in ("default", "stage")] == [PEM, PEM]

        await until(is_told)


async def test_a_namespace_that_refuses_them_keeps_no_other_waiting(store: Store) -> None:
    full = {"metadata": {"name": "full"}, "spec": {"hard": {"count/configmaps": "0"}}}
    async with ApiServer(store, ca_pem=b"old", packs=packs.choose("all")).running() as server:
        await server.clusters.create("team")
        api = server.client("team")
        for name in ("a", "b"):
            await api.post(NAMESPACES, {"metadata": {"name": name}})
        await api.post(f"{NAMESPACES}/a/resourcequotas", full)

        async def counted() -> bool:
            found = await api.get(f"{NAMESPACES}/a/resourcequotas/full")
            return bool(found["status"].get("used") == {"count/configmaps": "1"})

        await until(counted)
        await api.delete(f"{NAMESPACES}/a/{TRUSTED}")
    async with ApiServer(store, ca_pem=PEM.encode(), packs=packs.choose("all")).running() as server:
        api = server.client("team")

        async def is_told() -> bool:
            return await told(api, "b") == PEM

        await until(is_told)
        assert not await exists(api, f"{NAMESPACES}/a/{TRUSTED}")


async def test_certificates_that_may_not_change_are_left_alone(served: Served) -> None:
    api = served.cluster
    path = f"{NAMESPACES}/default/{TRUSTED}"
    await api.patch(path, {"immutable": True})
    await api.post(NAMESPACES, STAGE)
    await api.delete(f"{NAMESPACES}/stage/{ACCOUNT}")
    await until(lambda: provided(api, "stage"))
    assert (await api.get(path))["immutable"]


@pytest.mark.parametrize("chosen", ["none", "core,-serviceaccounts", "core,-configmaps"])
async def test_of_kinds_that_are_not_served_there_are_none(store: Store, chosen: str) -> None:
    async with ApiServer(store, packs=packs.choose(chosen)).running() as server:
        await server.clusters.create("team")
        api = server.client("team")
        if chosen == "none":
            with pytest.raises(ApiError):
                await api.get(NAMESPACES)
            return
        await api.post(NAMESPACES, STAGE)
        for what, kind in ((ACCOUNT, "serviceaccounts"), (TRUSTED, "configmaps")):
            assert await exists(api, f"{NAMESPACES}/stage/{what}") == (f"-{kind}" not in chosen)


async def test_nothing_is_made_where_a_create_is_only_tried(served: Served) -> None:
    await served.cluster.request("POST", f"{NAMESPACES}?dryRun=All", STAGE)
    team = await served.server.clusters.get("team")
    assert (await served.store.list(f"{team.id}/core/")).entries == []
