"""The server as a process: what is there after a stop, a crash, a second start; and who administers it how."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.e2e.clusters import CALL_S, Cluster, ServerProcess, serving
from tests.ports import free_port


def _cluster(server: ServerProcess, name: str, directory: Path) -> Cluster:
    server.cli("create", name)
    path = directory / f"{name}.yaml"
    path.write_text(server.cli("kubeconfig", name))
    return Cluster(name, path)


def _configmap(cluster: Cluster, name: str) -> tuple[int, bytes]:
    body = json.dumps({"metadata": {"name": name}}).encode()
    return cluster.http("POST", "/api/v1/namespaces/default/configmaps", body)


def _names(cluster: Cluster) -> set[str]:
    status, body = cluster.http("GET", "/api/v1/namespaces/default/configmaps")
    assert status == 200
    return {item["metadata"]["name"] for item in json.loads(body)["items"]} - {"kube-root-ca.crt"}


def test_a_restart_keeps_clusters_objects_and_credentials(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with serving(tmp_path / "data", listen=listen) as server:
        cluster = _cluster(server, "kept", tmp_path)
        status, body = _configmap(cluster, "before")
        assert status == 201
        before = int(json.loads(body)["metadata"]["resourceVersion"])
    with serving(tmp_path / "data", listen=listen) as server:
        assert "kept" in server.cli("list", "-o", "name")
        assert _names(cluster) == {"before"}
        status, body = _configmap(cluster, "after")
        assert status == 201
        assert int(json.loads(body)["metadata"]["resourceVersion"]) > before


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    acknowledged: list[str] = []
    enough = threading.Event()

    def write(cluster: Cluster, writer: int) -> None:
        try:
            for number in range(10_000):
                if _configmap(cluster, f"w{writer}-{number}")[0] == 201:
                    acknowledged.append(f"w{writer}-{number}")
                if len(acknowledged) >= 40:
                    enough.set()
        except OSError:
            return

    with serving(tmp_path / "data", listen=listen, ends_with=-signal.SIGKILL) as server:
        cluster = _cluster(server, "killed", tmp_path)
        writers = [threading.Thread(target=write, args=(cluster, number)) for number in range(4)]
        for writer in writers:
            writer.start()
        assert enough.wait(CALL_S)
        server.process.kill()
        for writer in writers:
            writer.join(CALL_S)
    with serving(tmp_path / "data", listen=listen):
        assert set(acknowledged) <= _names(cluster)


def _until_watching(cluster: Cluster, process: subprocess.Popen[bytes]) -> None:
    """Returns once a `kubectl get namespaces --watch` has printed a change, and so is past its list."""
    assert process.stdout is not None
    assert process.stdout.readline().split()[:2] == [b"default", b"Active"]
    status, _ = cluster.http("POST", "/api/v1/namespaces", b'{"metadata":{"name":"seen"}}')
    assert status == 201
    while not (line := process.stdout.readline()).startswith(b"seen "):
        assert line, "the watch ended before it saw the change"


@pytest.mark.kubectl
def test_stopping_ends_watches_cleanly(tmp_path: Path, kubectl_binary: Path) -> None:
    with serving(tmp_path / "data") as server:
        cluster = replace(_cluster(server, "watched", tmp_path), kubectl_binary=kubectl_binary)
        watch = ("get", "namespaces", "--watch", "--no-headers")
        process = subprocess.Popen(
            [str(kubectl_binary), *watch], env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        _until_watching(cluster, process)
        server.process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=CALL_S)
        assert (process.returncode, errors) == (0, b"")
        assert server.process.wait(CALL_S) == 0


@pytest.mark.kubectl
def test_deleting_a_cluster_ends_its_watches_and_its_credentials(
    server: ServerProcess, tmp_path: Path, kubectl_binary: Path
) -> None:
    cluster = replace(_cluster(server, "deleted", tmp_path), kubectl_binary=kubectl_binary)
    process = subprocess.Popen(
        [str(kubectl_binary), "get", "namespaces", "--watch", "--no-headers"],
        env=cluster.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    _until_watching(cluster, process)
    server.cli("delete", "deleted", "--yes", "--wait")
    process.communicate(timeout=CALL_S)
    assert cluster.http("GET", "/api/v1/namespaces")[0] == 401
    assert "deleted" not in server.cli("list", "-o", "name")


@pytest.fixture
def root(server: ServerProcess, kubectl_binary: Path, tmp_path: Path) -> Cluster:
    """The cluster `root`, as its administrator's kubeconfig opens it."""
    path = tmp_path / "root.yaml"
    path.write_text((server.data / "admin.kubeconfig").read_text())
    return Cluster("root", path, kubectl_binary)


def _logical_cluster(name: str, **spec: object) -> str:
    return json.dumps(
        {
            "apiVersion": "tenancy.clusterling.io/v1alpha1",
            "kind": "LogicalCluster",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


@pytest.mark.kubectl
def test_clusters_are_made_and_removed_with_kubectl(root: Cluster) -> None:
    root.kubectl("create", "-f", "-", stdin=_logical_cluster("by-kubectl", displayName="By kubectl"))
    phase = root.kubectl("get", "logicalcluster", "by-kubectl", "-o", "jsonpath={.status.phase}")
    assert phase == "Ready"
    root.kubectl("wait", "--for=condition=Ready", "logicalcluster/by-kubectl", "--timeout=50s")
    assert root.kubectl("explain", "logicalcluster.spec.displayName").startswith(
        "GROUP:      tenancy.clusterling.io"
    )
    kubeconfig = root.kubectl(
        "create",
        "--raw",
        "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/by-kubectl/kubeconfig",
        "-f",
        "-",
        stdin="{}",
    )
    path = root.kubeconfig.with_name("by-kubectl.yaml")
    path.write_text(yaml.safe_dump(json.loads(kubeconfig)))
    assert Cluster("by-kubectl", path).http("GET", "/api/v1/namespaces/default")[0] == 200
    deleted = root.kubectl("delete", "logicalcluster", "by-kubectl")
    assert deleted == 'logicalcluster.tenancy.clusterling.io "by-kubectl" deleted\n'
    assert "not found" in root.kubectl("get", "logicalcluster", "by-kubectl", code=1)


@pytest.mark.kubectl
def test_root_cannot_be_deleted(root: Cluster) -> None:
    error = root.kubectl("delete", "logicalcluster", "root", code=1)
    assert "Forbidden" in error
    assert root.kubectl("get", "namespaces", "-o", "name")


@pytest.mark.kubectl
@pytest.mark.parametrize("name", ["UPPER", "dotted.name", "-", "a" * 64])
def test_names_that_no_path_can_carry_are_refused(root: Cluster, name: str) -> None:
    error = root.kubectl("create", "-f", "-", stdin=_logical_cluster(name), code=1)
    assert "is invalid: metadata.name: Invalid value" in error


def test_administrators_of_root_administer_every_cluster(
    server: ServerProcess, root: Cluster, cluster: Cluster
) -> None:
    opened = yaml.safe_load(root.kubeconfig.read_text())
    opened["clusters"][0]["cluster"]["server"] = cluster.url
    path = root.kubeconfig.with_name("opened.yaml")
    path.write_text(yaml.safe_dump(opened))
    assert Cluster("opened", path).http("GET", "/api/v1/namespaces/default")[0] == 200


@pytest.mark.parametrize("name", ["root", "default", "never-was-here"])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/version", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/healthz", 200),
        ("/api", 401),
        ("/api/v1/namespaces", 401),
    ],
)
def test_without_a_credential_only_health_and_version_answer(
    server: ServerProcess, cluster: Cluster, name: str, path: str, status: int
) -> None:
    where = f"{server.url}/clusters/{name}{path}"
    try:
        with urllib.request.urlopen(where, context=cluster.tls, timeout=CALL_S) as answer:
            assert answer.status == status
    except urllib.error.HTTPError as refused:
        with refused:
            assert refused.code == status
