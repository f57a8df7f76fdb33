"""Reviews and account tokens, asked of a whole server in this process: who may do what is decided there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.packs import choose
from clusterling.registry.strategy import User
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.storage import memory
from clusterling.tenancy.authorization import MASTERS
from tests.packs.conftest import causes

_AUTHENTICATION = "/apis/authentication.k8s.io/v1"
_AUTHORIZATION = "/apis/authorization.k8s.io/v1"
_PODS = {"verb": "get", "resource": "pods", "namespace": "default"}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with memory.open() as store:
        server = ApiServer(store, packs=choose("all"), run_controllers=False)
        async with server.running():
            made = await server.clusters.create("t")
            yield server.client("t", User("owner", (MASTERS,), realm=made.id))


def _review(kind: str, spec: Object | None = None, **more: object) -> Object:
    group = (
        "authentication" if kind in ("TokenReview", "SelfSubjectReview", "TokenRequest") else "authorization"
    )
    body: Object = {"apiVersion": f"{group}.k8s.io/v1", "kind": kind, **more}
    return body if spec is None else {**body, "spec": spec}


async def _refused(client: Client, path: str, body: Object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await client.post(path, body)
    return caught.value


async def test_who_asks_is_told_who_they_are(client: Client) -> None:
    told = await client.post(f"{_AUTHENTICATION}/selfsubjectreviews", _review("SelfSubjectReview"))
    assert told["status"]["userInfo"] == {"username": "owner", "groups": [MASTERS]}


async def test_a_clusters_masters_may_do_everything_and_others_nothing(client: Client) -> None:
    mine = _review("SelfSubjectAccessReview", {"resourceAttributes": _PODS})
    told = await client.post(f"{_AUTHORIZATION}/selfsubjectaccessreviews", mine)
    assert told["status"] == {"allowed": True}
    spec = {"user": "x", "groups": [MASTERS], "nonResourceAttributes": {"verb": "get", "path": "/x"}}
    theirs = f"{_AUTHORIZATION}/subjectaccessreviews"
    assert (await client.post(theirs, _review("SubjectAccessReview", spec)))["status"] == {"allowed": True}
    spec["groups"] = []
    assert (await client.post(theirs, _review("SubjectAccessReview", spec)))["status"] == {"allowed": False}
    rules = _review("SelfSubjectRulesReview", {"namespace": "default"})
    told = await client.post(f"{_AUTHORIZATION}/selfsubjectrulesreviews", rules)
    assert told["status"]["resourceRules"] == [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    assert told["status"]["incomplete"] is False


async def test_a_local_review_is_about_its_own_namespace(client: Client) -> None:
    path = f"{_AUTHORIZATION}/namespaces/default/localsubjectaccessreviews"
    spec: Object = {"user": "x", "resourceAttributes": _PODS}
    told = await client.post(path, _review("LocalSubjectAccessReview", spec))
    assert told["metadata"] == {"namespace": "default"}
    spec = {"user": "x", "resourceAttributes": {**_PODS, "namespace": "other"}}
    error = await _refused(client, path, _review("LocalSubjectAccessReview", spec))
    assert causes(error) == [
        ("spec.resourceAttributes.namespace", 'Invalid value: "other": must match metadata.namespace')
    ]


async def test_a_review_is_about_one_thing_and_has_no_name(client: Client) -> None:
    path = f"{_AUTHORIZATION}/selfsubjectaccessreviews"
    error = await _refused(client, path, _review("SelfSubjectAccessReview", {}))
    either = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
    assert causes(error) == [("spec", f"Invalid value: null: {either}")]
    assert error.message.startswith('.authorization.k8s.io "" is invalid: spec:')
    selecting: Object = {"resourceAttributes": {"labelSelector": {}, "fieldSelector": {"requirements": [{}]}}}
    body = _review("SelfSubjectAccessReview", selecting, metadata={"name": "x"})
    assert [field for field, _ in causes(await _refused(client, path, body))] == [
        "spec.resourceAttributes.fieldSelector.requirements[0].key",
        "spec.resourceAttributes.labelSelector.requirements",
        "metadata",
    ]


async def test_an_accounts_token_is_the_account_for_its_audience_only(client: Client) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    account = await client.post(
        accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}
    )
    request = _review("TokenRequest", {"audiences": ["vault"], "expirationSeconds": 900})
    made = await client.post(f"{accounts}/a/token", request)
    assert made["metadata"]["uid"] == account["metadata"]["uid"]
    token = made["status"]["token"]

    async def status(**spec: object) -> Object:
        told = await client.post(
            f"{_AUTHENTICATION}/tokenreviews", _review("TokenReview", {"token": token, **spec})
        )
        found: Object = told["status"]
        return found

    assert await status() == {"user": {}, "error": "invalid bearer token"}
    assert await status(audiences=["vault"]) == {
        "authenticated": True,
        "audiences": ["vault"],
        "user": {
            "username": "system:serviceaccount:default:a",
            "uid": account["metadata"]["uid"],
            "groups": [
                "system:serviceaccounts",
                "system:serviceaccounts:default",
                "system:authenticated",
            ],
        },
    }


async def test_a_token_is_asked_for_in_time_and_for_what_is_there(client: Client) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await client.post(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}})
    path = f"{accounts}/a/token"
    error = await _refused(client, path, _review("TokenRequest", {"expirationSeconds": 10}))
    assert [field for field, _ in causes(error)] == ["spec.expirationSeconds"]
    bound = {"apiVersion": "v1", "kind": "Secret", "name": "none"}
    error = await _refused(client, path, _review("TokenRequest", {"boundObjectRef": bound}))
    assert error.message == 'secrets "none" not found'
    error = await _refused(client, f"{accounts}/b/token", _review("TokenRequest", {}))
    assert error.message == 'serviceaccounts "b" not found'
