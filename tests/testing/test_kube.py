"""The pytest fixture: what a test gets from it, and what it costs a run that does not use it."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import name_of
from clusterling.testing import Kube, KubeServer

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}, colour: {type: string}}}
"""
WIDGET = {
    "apiVersion": "example.com/v1",
    "kind": "Widget",
    "metadata": {"name": "one"},
    "spec": {"size": 1, "colour": "red"},
}
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"


def test_a_cluster_is_fresh_and_works(kube: Kube) -> None:
    names = {one["metadata"]["name"] for one in kube.client.get("/api/v1/namespaces")["items"]}
    assert names == {"default", "kube-system", "kube-public", "kube-node-lease"}
    made = kube.client.post(
        "/api/v1/namespaces/default/configmaps",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}},
    )
    assert made["data"] == {"k": "v"}


def test_kube_systems_uid_is_the_clusters(kube_factory: Callable[[], Kube], kube_server: KubeServer) -> None:
    """Agents take that uid for the cluster's identity (kubernetes#77487)."""
    root = Kube(kube_server, "root")
    for kube in (kube_factory(), kube_factory(), root):
        shown = root.client.get(f"/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/{kube.name}")
        assert (
            kube.client.get("/api/v1/namespaces/kube-system")["metadata"]["uid"] == shown["metadata"]["uid"]
        )


def test_two_clusters_share_nothing(kube_factory: Callable[[], Kube]) -> None:
    one, other = kube_factory(), kube_factory()
    assert one.name != other.name
    one.apply(CRD)
    one.apply(WIDGET)
    with pytest.raises(ApiError) as refused:
        other.client.get(WIDGETS)
    assert refused.value.code == 404


def test_what_is_applied_twice_is_merged(kube: Kube, tmp_path: Path) -> None:
    (tmp_path / "1-crd.yaml").write_text(CRD)
    (tmp_path / "2-widget.json").write_text(json.dumps(WIDGET))
    (tmp_path / "README.md").write_text("not a manifest")
    assert [one["kind"] for one in kube.apply(tmp_path)] == ["CustomResourceDefinition", "Widget"]
    (merged,) = kube.apply({**WIDGET, "spec": {"size": 2}})
    assert merged["spec"] == {"size": 2, "colour": "red"}
    assert kube.client.get(f"{WIDGETS}/one") == merged
    (again,) = kube.apply(str(tmp_path / "2-widget.json"))
    assert again["spec"] == WIDGET["spec"]
    both = kube.apply(
        {"apiVersion": "v1", "kind": "List", "items": [WIDGET, {**WIDGET, "metadata": {"name": "two"}}]}
    )
    assert [one["metadata"]["name"] for one in both] == ["one", "two"]


def test_what_is_applied_is_text_or_a_path_by_how_it_begins(kube: Kube, tmp_path: Path) -> None:
    long = "{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}, data: {text: %s}}"
    assert name_of(kube.apply(long % ("a", "x" * 5000))[0]) == "a"
    assert [name_of(one) for one in kube.apply(f"[{long % ('b', 'x')}, {long % ('c', 'x')}]")] == ["b", "c"]
    with pytest.raises(FileNotFoundError):
        kube.apply("deploy/absent.yaml")
    with pytest.raises(ValueError, match="this is no object: 'a sentence'"):
        kube.apply("---\na sentence\n")


def test_a_kind_that_is_not_served_is_named(kube: Kube) -> None:
    with pytest.raises(LookupError, match="serves no Nonsense in v1"):
        kube.apply({"apiVersion": "v1", "kind": "Nonsense", "metadata": {"name": "a"}})


def test_it_is_reached_over_https_with_what_it_gives(kube: Kube) -> None:
    request = urllib.request.Request(
        f"{kube.url}/api/v1/namespaces/default", headers={"Authorization": f"Bearer {kube.token}"}
    )
    context = ssl.create_default_context(cadata=kube.ca_pem)
    with urllib.request.urlopen(request, context=context, timeout=30) as response:
        assert json.load(response)["metadata"]["name"] == "default"
    assert kube.env == {"KUBECONFIG": str(kube.kubeconfig)}
    assert yaml.safe_load(kube.kubeconfig.read_text()) == kube.kubeconfig_dict


def test_kubectl_works_with_its_environment(kube: Kube, kubectl_binary: Path) -> None:
    done = subprocess.run(
        [kubectl_binary, "get", "namespaces", "-o", "name"],
        env={**kube.env, "HOME": str(kube.kubeconfig.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "namespace/default" in done.stdout.splitlines()


async def test_asynchronous_tests_use_it_alike(kube: Kube) -> None:
    kube.apply(CRD)
    bodies = [{**WIDGET, "metadata": {"name": f"w{number}"}} for number in range(10)]
    made = await asyncio.gather(*(kube.async_client.post(WIDGETS, body) for body in bodies))
    assert len({one["metadata"]["uid"] for one in made}) == 10
    await kube.async_client.patch(f"{WIDGETS}/w0", {"spec": {"size": 5}})
    assert (await kube.async_client.get(f"{WIDGETS}/w0"))["spec"]["size"] == 5
    await kube.async_client.delete(f"{WIDGETS}/w0")
    with pytest.raises(ApiError):
        await kube.async_client.get(f"{WIDGETS}/w0")


def test_a_run_that_asks_for_no_cluster_imports_no_server(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_nothing():\n"
        "    heavy = {'httptools', 'apsw', 'clusterling.server', 'cryptography', 'orjson', 'yaml'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_run_leaves_no_thread_and_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import threading\n"
        "def test_one(kube):\n"
        "    assert kube.url.startswith('https://127.0.0.1:')\n"
        "    assert kube.kubeconfig.exists()\n"
    )
    command = [
        sys.executable,
        "-X",
        "dev",
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_two_servers_in_one_process_share_nothing(kube_server: KubeServer, tmp_path: Path) -> None:
    with KubeServer(tmp_path) as other, other.cluster("twin") as theirs, kube_server.cluster("twin") as ours:
        ours.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
        with pytest.raises(ApiError):
            theirs.client.get("/api/v1/namespaces/default/configmaps/a")
        assert ours.url != theirs.url
        request = urllib.request.Request(
            f"{theirs.url}/api/v1/namespaces", headers={"Authorization": f"Bearer {ours.token}"}
        )
        context = ssl.create_default_context(cadata=theirs.ca_pem)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, context=context, timeout=30)
        assert refused.value.code == 401
        refused.value.close()
