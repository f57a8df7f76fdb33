"""Python's client libraries, as published, against a logical cluster by path."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from subprocess import STDOUT, Popen
from time import monotonic, sleep
from typing import Any

import pytest

from tests.e2e.clusters import CALL_S, Cluster

pytestmark = [
    pytest.mark.clients,
    # What the libraries do with the standard library and with each other is not ours to warn about.
    pytest.mark.filterwarnings(
        "default", "ignore::ResourceWarning", "ignore:Kubernetes version .* is not supported"
    ),
]

GREETINGS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "greetings.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"kind": "Greeting", "plural": "greetings", "singular": "greeting"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["whom"],
                                "properties": {
                                    "whom": {"type": "string", "minLength": 1},
                                    "times": {"type": "integer", "default": 1},
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def greeting(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Greeting", "metadata": {"name": name}, "spec": spec}


def _any(module: str) -> Any:
    """A client library without its types: they make the simplest call a matter of casts."""
    return importlib.import_module(module)


@pytest.fixture(autouse=True)
def _swept() -> Iterator[None]:
    """What the libraries leave open is found here, not in whatever test comes next."""
    yield
    gc.collect()


@pytest.fixture
def official(cluster: Cluster) -> Iterator[Any]:
    """The official client, aimed at a fresh cluster."""
    kubernetes = _any("kubernetes")
    api = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
    with api:
        yield api


def _until(what: Callable[[], bool]) -> None:
    """Waits for another process to have done something; fails when it has not within the limit."""
    deadline = monotonic() + CALL_S
    while not what():
        assert monotonic() < deadline, "it did not happen"
        sleep(0.05)


def _served(cluster: Cluster) -> None:
    """Ours serves a kind when its definition's POST returns; kube-apiserver a second or two later."""
    _until(lambda: cluster.http("GET", "/apis/example.com/v1/namespaces/default/greetings")[0] == 200)


def test_the_official_client_creates_reads_patches_and_deletes(official: Any) -> None:
    client = _any("kubernetes.client")

    core = client.CoreV1Api(official)
    made = core.create_namespaced_config_map(
        "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="settings"), data={"a": "1"})
    )
    assert made.metadata.creation_timestamp is not None
    core.patch_namespaced_config_map("settings", "default", {"data": {"b": "2"}})
    assert core.read_namespaced_config_map("settings", "default").data == {"a": "1", "b": "2"}
    made.data = {"stale": "yes"}
    with pytest.raises(client.ApiException) as conflict:
        core.replace_namespaced_config_map("settings", "default", made)
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")
    core.delete_namespaced_config_map("settings", "default")
    with pytest.raises(client.ApiException) as missing:
        core.read_namespaced_config_map("settings", "default")
    assert missing.value.status == 404
    assert client.VersionApi(official).get_code().git_version.startswith("v1.")


def test_the_official_client_pages_through_a_list(official: Any) -> None:
    client = _any("kubernetes.client")

    core = client.CoreV1Api(official)
    for number in range(5):
        metadata = client.V1ObjectMeta(name=f"n{number}", labels={"paged": "yes"})
        core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=metadata))
    seen, following = [], None
    while following != "":
        page = core.list_namespaced_config_map(
            "default", label_selector="paged", limit=2, _continue=following
        )
        seen.append([item.metadata.name for item in page.items])
        following = page.metadata._continue or ""
    assert seen == [["n0", "n1"], ["n2", "n3"], ["n4"]]


def test_the_official_client_watches_from_a_list(official: Any) -> None:
    client, watch = _any("kubernetes.client"), _any("kubernetes.watch")

    core = client.CoreV1Api(official)
    listed = core.list_namespaced_secret("default")
    core.create_namespaced_secret("default", {"metadata": {"name": "one"}, "stringData": {"k": "v"}})
    core.patch_namespaced_secret("one", "default", {"metadata": {"labels": {"x": "y"}}})
    core.delete_namespaced_secret("one", "default")
    events = watch.Watch().stream(
        core.list_namespaced_secret,
        "default",
        resource_version=listed.metadata.resource_version,
        timeout_seconds=CALL_S,
    )
    seen = []
    for event in events:
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 3:
            break
    assert seen == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


def test_the_official_clients_dynamic_part_finds_a_new_kind(cluster: Cluster, official: Any) -> None:
    client, dynamic = _any("kubernetes.client"), _any("kubernetes.dynamic")
    refusal = _any("kubernetes.dynamic.exceptions").UnprocessibleEntityError

    client.ApiextensionsV1Api(official).create_custom_resource_definition(GREETINGS)
    _served(cluster)
    greetings = dynamic.DynamicClient(official).resources.get(api_version="example.com/v1", kind="Greeting")
    made = greetings.create(body=greeting("first", whom="world"), namespace="default")
    assert made.spec.times == 1
    with pytest.raises(refusal) as refused:
        greetings.create(body=greeting("second", whom=""), namespace="default")
    assert "spec.whom in body should be at least 1 chars long" in str(refused.value.body)
    status = {"apiVersion": "example.com/v1", "kind": "Greeting", "metadata": {"name": "first"}}
    greetings.status.patch(
        body=status | {"status": {"said": True}},
        namespace="default",
        content_type="application/merge-patch+json",
    )
    assert greetings.get(name="first", namespace="default").status.said is True
    custom = client.CustomObjectsApi(official)
    listed = custom.list_namespaced_custom_object("example.com", "v1", "default", "greetings")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["first"]


@pytest.fixture
async def kr8s(cluster: Cluster) -> AsyncIterator[Any]:
    """kr8s, aimed at a fresh cluster."""
    api = await _any("kr8s").asyncio.api(kubeconfig=str(cluster.kubeconfig))
    yield api
    await api._session.aclose()


async def test_kr8s_works_with_builtin_and_custom_kinds(kr8s: Any, cluster: Cluster) -> None:
    api, objects = kr8s, _any("kr8s.asyncio.objects")
    assert (await api.version())["major"] == "1"
    settings = await objects.ConfigMap(
        {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1"}}, api=api
    )
    await settings.create()
    await settings.patch({"data": {"b": "2"}})
    assert settings.data == {"a": "1", "b": "2"}
    await settings.label({"team": "red"})
    found = [
        one.name async for one in api.get("configmaps", namespace="default", label_selector={"team": "red"})
    ]
    assert found == ["settings"]
    definition = await objects.CustomResourceDefinition(GREETINGS, api=api)
    await definition.create()
    _served(cluster)
    await definition.refresh()
    await definition.wait("condition=Established")
    kind = objects.new_class("Greeting", "example.com/v1", namespaced=True, asyncio=True)
    first = await kind(
        greeting("first", whom="world") | {"metadata": {"name": "first", "namespace": "default"}}, api=api
    )
    await first.create()
    assert await first.exists()
    assert first.spec.times == 1
    await first.delete()
    await settings.delete()
    assert not await settings.exists()


async def test_kr8s_watches(kr8s: Any) -> None:
    api, objects = kr8s, _any("kr8s.asyncio.objects")
    one = await objects.ConfigMap(
        {"metadata": {"name": "one", "namespace": "default", "labels": {"w": "y"}}}, api=api
    )
    await one.create()
    seen = []
    async for kind, obj in api.watch("configmaps", namespace="default", label_selector={"w": "y"}):
        seen.append((kind, obj.name))
        if kind == "ADDED":
            await one.patch({"data": {"a": "1"}})
        elif kind == "MODIFIED":
            await one.delete()
        else:
            break
    assert seen == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


def test_lightkube_works_with_builtin_and_custom_kinds(cluster: Cluster) -> None:
    lightkube, generic = _any("lightkube"), _any("lightkube.generic_resource")
    core, extensions = _any("lightkube.resources.core_v1"), _any("lightkube.resources.apiextensions_v1")
    meta, types = _any("lightkube.models.meta_v1").ObjectMeta, _any("lightkube.types").PatchType

    client = lightkube.Client(config=lightkube.KubeConfig.from_file(str(cluster.kubeconfig)), trust_env=False)
    client.create(core.Namespace(metadata=meta(name="light")))
    client.create(core.ConfigMap(metadata=meta(name="settings", namespace="light"), data={"a": "1"}))
    client.patch(core.ConfigMap, "settings", {"data": {"b": "2"}}, namespace="light", patch_type=types.MERGE)
    client.patch(
        core.ConfigMap, "settings", {"data": {"a": None}}, namespace="light", patch_type=types.STRATEGIC
    )
    assert client.get(core.ConfigMap, "settings", namespace="light").data == {"b": "2"}
    assert [
        found.metadata.name for found in client.list(core.Namespace, fields={"metadata.name": "light"})
    ] == ["light"]
    client.create(extensions.CustomResourceDefinition.from_dict(GREETINGS))
    _served(cluster)
    kind = generic.create_namespaced_resource("example.com", "v1", "Greeting", "greetings")
    client.create(kind(metadata={"name": "first", "namespace": "light"}, spec={"whom": "world"}))
    assert client.get(kind, "first", namespace="light").spec == {"whom": "world", "times": 1}
    with pytest.raises(lightkube.ApiError) as refused:
        client.create(kind(metadata={"name": "second", "namespace": "light"}, spec={}))
    assert refused.value.status.reason == "Invalid"
    events = client.watch(core.ConfigMap, namespace="light")
    operation, watched = next(iter(events))
    assert (operation, watched.metadata.namespace) == ("ADDED", "light")
    client.delete(core.ConfigMap, "settings", namespace="light")
    with pytest.raises(lightkube.ApiError) as missing:
        client.get(core.ConfigMap, "settings", namespace="light")
    assert missing.value.status.code == 404


@pytest.fixture
def operator(cluster: Cluster, official: Any, tmp_path: Path) -> Iterator[Path]:
    """The operator beside this file, running against the cluster; its log."""
    client = _any("kubernetes.client")

    client.ApiextensionsV1Api(official).create_custom_resource_definition(GREETINGS)
    log = tmp_path / "operator.log"
    program = Path(__file__).with_name("operator_with_kopf.py")
    command = [
        sys.executable,
        "-m",
        "kopf",
        "run",
        str(program),
        "--standalone",
        "-n",
        "default",
        "--verbose",
    ]
    with log.open("wb") as output:
        process = Popen(command, env=cluster.env | {"PYTHONWARNINGS": "ignore"}, stdout=output, stderr=STDOUT)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(CALL_S)


def test_an_operator_written_with_kopf_reconciles(official: Any, operator: Path) -> None:
    client = _any("kubernetes.client")

    core, custom = client.CoreV1Api(official), client.CustomObjectsApi(official)
    where = ("example.com", "v1", "default", "greetings")

    def text() -> str:
        found = core.list_namespaced_config_map("default", label_selector="greeting=first").items
        return found[0].data["text"] if found else ""

    def names() -> set[str]:
        return {item.metadata.name for item in core.list_namespaced_config_map("default").items}

    custom.create_namespaced_custom_object(*where, greeting("first", whom="world"))
    _until(lambda: text() == "Hello, world!")
    _until(lambda: "status" in custom.get_namespaced_custom_object(*where, "first"))
    found = custom.get_namespaced_custom_object(*where, "first")
    assert found["status"]["create"] == {"configMap": "first-text"}
    assert found["metadata"]["finalizers"] == ["example.com/greeter"]
    _until(lambda: any(e.reason == "Greeted" for e in core.list_namespaced_event("default").items))

    custom.patch_namespaced_custom_object(*where, "first", {"spec": {"whom": "moon"}})
    _until(lambda: text() == "Hello, moon!")

    custom.delete_namespaced_custom_object(*where, "first")
    _until(lambda: not custom.list_namespaced_custom_object(*where)["items"])
    assert "first-farewell" in names()
    if not os.environ.get("E2E_PEER"):  # kube-apiserver leaves this to its controller manager
        _until(lambda: "first-text" not in names())
