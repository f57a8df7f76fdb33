"""The cluster that the chart is installed into: a logical cluster of our own, with the kinds of what the chart works with."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.deploy import schemas
from tests.deploy.charts import Helm, Rendered
from tests.e2e.clusters import Cluster, ServerProcess, serving
from tests.storage.conftest import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]

# Module, its sum, and which of its CRDs the chart's objects are of.
DEFINITIONS = [
    (
        "sigs.k8s.io/gateway-api@v1.5.1",
        "h1:RqVRIlkhLhUO8wOHKTLnTJA6o/1un4po4/6M1nRzdd0=",
        "config/crd/standard/gateway.networking.k8s.io_{}.yaml",
        ["backendtlspolicies", "httproutes", "tlsroutes"],
    ),
    (
        "github.com/cert-manager/cert-manager@v1.21.2",
        "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
        "deploy/crds/cert-manager.io_{}.yaml",
        ["certificates", "issuers"],
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml",
        ["podmonitors", "prometheusrules", "servicemonitors"],
    ),
]


@pytest.fixture(scope="session")
def helm(helm_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(helm_binary, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def rendered(helm: Helm) -> Rendered:
    return Rendered(helm)


@pytest.fixture(scope="session")
def definitions() -> list[Path]:
    """The CRDs' files, from the Go modules of those who publish them."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("the CRDs of what the chart works with come from Go modules, and Go is not installed")
    found = []
    for module, checksum, pattern, names in DEFINITIONS:
        done = subprocess.run(
            [go, "mod", "download", "-json", module], capture_output=True, text=True, check=True, cwd="/"
        )
        said = json.loads(done.stdout)
        assert said["Sum"] == checksum
        found += [Path(said["Dir"], pattern.format(name)) for name in names]
    return found


@pytest.fixture(scope="session")
def host_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("host") / "data", "--packs", "all") as server:
        yield server


@pytest.fixture(scope="session")
def host(
    host_server: ServerProcess,
    kubectl_binary: Path,
    definitions: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Cluster:
    """A cluster that has all kinds the chart makes objects of. It has no nodes: nothing runs there."""
    path = tmp_path_factory.mktemp("host-cluster") / "host.yaml"
    host_server.cli("create", "host")
    path.write_text(host_server.cli("kubeconfig", "host"))
    cluster = replace(Cluster("host", path), kubectl_binary=kubectl_binary)
    for file in definitions:
        cluster.kubectl("create", "-f", str(file))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
    return cluster


@pytest.fixture(scope="session")
def kind_schemas(host: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON schemas of all those kinds, as our own server publishes them."""

    def read(path: str) -> schemas.Document:
        code, body = host.http("GET", path.removeprefix("/clusters/host"))
        assert code == 200, path
        document: schemas.Document = json.loads(body)
        return document

    directory = tmp_path_factory.mktemp("schemas") / "kinds"
    assert schemas.write(read, directory) > 100
    return directory
